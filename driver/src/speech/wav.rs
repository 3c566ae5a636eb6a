//! Sounds from WAV files, by the crate `hound`: integers of 8 to 32 bits and floats, of any rate, which the crate `rubato` changes.

use crate::{Error, Result};
use hound::{SampleFormat, WavReader};
use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Fft, FixedSync, Resampler, WindowFunction};
use std::path::Path;

/// Samples that are resampled at once, at least.
const CHUNK: usize = 1024;

/// The samples of a file at this rate, the mean of its channels, from -1 to 1.
///
/// # Errors
/// When it cannot be read, is no WAV file or damaged, or has samples that are no numbers.
pub fn read(path: &Path, rate: u32) -> Result<Vec<f32>> {
    let wrong = |message: String| Error::file(path, message);
    let told = |e: hound::Error| match e {
        hound::Error::IoError(e) => Error::io(path, e),
        hound::Error::Unsupported => wrong("a kind of WAV that is not read: expected PCM or floats".into()),
        hound::Error::FormatError(reason) => wrong(format!("no WAV file, or a damaged one: {reason}")),
        other => wrong(other.to_string()),
    };
    if path.is_dir() {
        return Err(wrong("a folder, expected a WAV file".into()));
    }
    let reader = WavReader::open(path).map_err(told)?;
    let spec = reader.spec();
    if spec.channels == 0 || spec.sample_rate == 0 {
        let message = format!("{} channels at {} Hz", spec.channels, spec.sample_rate);
        return Err(wrong(message));
    }
    let samples: Vec<f32> = match spec.sample_format {
        SampleFormat::Float => reader.into_samples::<f32>().collect::<Result<_, _>>().map_err(told)?,
        SampleFormat::Int => {
            let full = f64::from(spec.bits_per_sample - 1).exp2();
            let scaled = |s: i32| (f64::from(s) / full) as f32;
            let all = reader.into_samples::<i32>().map(|s| s.map(scaled));
            all.collect::<Result<_, _>>().map_err(told)?
        }
    };
    if let Some(at) = samples.iter().position(|s| !s.is_finite()) {
        return Err(wrong(format!("sample {at} is {}, expected a number", samples[at])));
    }
    let channels = usize::from(spec.channels);
    let mean = |frame: &[f32]| frame.iter().sum::<f32>() / channels as f32;
    let mono: Vec<f32> = samples.chunks_exact(channels).map(mean).collect();
    match spec.sample_rate == rate || mono.is_empty() {
        true => Ok(mono),
        false => resampled(&mono, [spec.sample_rate, rate].map(|r| r as usize))
            .map_err(|e| wrong(format!("{} Hz: {e}", spec.sample_rate))),
    }
}

/// Samples at another rate.
fn resampled(samples: &[f32], [from, to]: [usize; 2]) -> std::result::Result<Vec<f32>, String> {
    let n = samples.len();
    // Of an even number of periods the filter's middle is a sample, and what comes out is not shifted by a part of one.
    let periods = 2 * (from / gcd(from, to));
    let chunk = CHUNK.next_multiple_of(periods);
    let window = WindowFunction::BlackmanHarris2;
    let mut resampler =
        Fft::<f32>::new_custom(from, to, chunk, 1, 1, window, FixedSync::Input).map_err(|e| e.to_string())?;
    let input = InterleavedSlice::new(samples, 1, n).map_err(|e| e.to_string())?;
    let output = resampler.process_all(&input, n, None).map_err(|e| e.to_string())?;
    Ok(output.take_data())
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tone has the same frequency and loudness at another rate.
    #[test]
    fn tones_stay_what_they_are() {
        for from in [8_000usize, 11_025, 44_100, 48_000] {
            let tone = |rate: usize| move |i: usize| (i as f32 / rate as f32 * 440.0 * std::f32::consts::TAU).sin();
            let samples: Vec<f32> = (0..from).map(tone(from)).collect();
            let found = resampled(&samples, [from, 16_000]).unwrap();
            assert_eq!(found.len(), 16_000);
            // Not where the tone begins and ends.
            let worst = (1000..15_000)
                .map(|i| (found[i] - tone(16_000)(i)).abs())
                .fold(0.0, f32::max);
            assert!(worst < 1e-3, "{from}: {worst}");
        }
    }
}
