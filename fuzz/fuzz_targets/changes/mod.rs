//! How libFuzzer changes a model: mostly its parts, at times its bytes, as it changes any input.

use brolga_tests::mutate;
use brolga_tests::random::Random;

/// Puts `new` where libFuzzer wants it, if it fits.
fn put(new: Option<Vec<u8>>, to: &mut [u8], max_size: usize) -> Option<usize> {
    let new = new.filter(|n| n.len() <= max_size.min(to.len()))?;
    to[..new.len()].copy_from_slice(&new);
    Some(new.len())
}

libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let mut random = Random(seed.into());
    let by_parts = random.below(4) != 0;
    let new = if by_parts { mutate::model(&data[..size], &[], &mut random) } else { None };
    put(new, data, max_size).unwrap_or_else(|| libfuzzer_sys::fuzzer_mutate(data, size, max_size))
});

libfuzzer_sys::fuzz_crossover!(|data1: &[u8], data2: &[u8], out: &mut [u8], seed: u32| {
    let mut random = Random(seed.into());
    let new = mutate::model(data1, data2, &mut random).unwrap_or_else(|| mutate::bytes(data1, data2, &mut random));
    let max_size = out.len();
    put(Some(new), out, max_size).unwrap_or(0)
});
