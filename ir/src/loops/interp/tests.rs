use super::*;
use crate::text::Lexer;

fn kernel(text: &str) -> Kernel {
    let k = Kernel::parse(&mut Lexer::new(text)).unwrap_or_else(|e| panic!("{e} in\n{text}"));
    assert_eq!(k.to_string().parse::<Kernel>().as_ref(), Ok(&k), "{k}");
    k
}

/// Runs on f32 buffers; the last one is the result.
fn run_f32(text: &str, symbols: &[(&str, i64)], buffers: &[Vec<f32>]) -> Result<Vec<f32>, String> {
    let mut bytes: Vec<Vec<u8>> = buffers
        .iter()
        .map(|b| b.iter().flat_map(|x| x.to_le_bytes()).collect())
        .collect();
    let data: Vec<BufferData> = bytes.iter_mut().map(|b| (&mut b[..]).into()).collect();
    let lookup = |s: &str| symbols.iter().find(|(n, _)| *n == s).map(|(_, v)| *v);
    run(&kernel(text), &lookup, &data).map_err(|e| e.to_string())?;
    let last = bytes.last().unwrap();
    Ok(last
        .chunks_exact(4)
        .map(|c| f32::from_le_bytes(c.try_into().unwrap()))
        .collect())
}

fn ramp(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7 + 3) % 11) as f32 - 4.0).collect()
}

#[test]
fn vector_lanes_and_a_tail() {
    let text = "loops @add(b0: f32[n] in, b1: f32[n] in, b2: f32[n] out) symbols(n) {
        for i0 parallel 0..floordiv(n, 8) {
          for i1 vector 0..8 {
            r0: f32 = load b0[8*i0 + i1]
            r1: f32 = load b1[8*i0 + i1]
            r2: f32 = add r0 r1
            store b2[8*i0 + i1] = r2
          }
        }
      }";
    let tail = "loops @add(b0: f32[n] in, b1: f32[n] in, b2: f32[n] out) symbols(n) {
        for i0 serial 0..ceildiv(n, 8) {
          for i2 vector 0..8 {
            r0: f32 = load b0[8*i0 + i2] where (8*i0 + i2 in 0..n) else f32 0.0
            r3: i64 = index 8*i0 + i2
            r1: f32 = load b1[r3] where (r3 in 0..n) else f32 0.0
            r2: f32 = add r0 r1
          }
          for i1 serial 0..least(-8*i0 + n, 8) {
            r4: f32 = load b0[8*i0 + i1]
            r5: f32 = load b1[8*i0 + i1]
            r6: f32 = add r4 r5
            store b2[8*i0 + i1] = r6
          }
        }
      }";
    for (text, n) in [(text, 16), (tail, 13), (tail, 0)] {
        let (a, b) = (ramp(n), ramp(n + 5)[5..].to_vec());
        let want: Vec<f32> = a.iter().zip(&b).map(|(x, y)| x + y).collect();
        assert_eq!(run_f32(text, &[("n", n as i64)], &[a, b, vec![0.0; n]]).unwrap(), want);
    }
}

#[test]
fn lanes_kept_across_vector_loops() {
    let text = "loops @sum(b0: f32[32] in, b1: f32[1] out) {
        r0: f32x4 = const f32 0.0
        for i0 serial 0..8 {
          for i1 vector 0..4 {
            r1: f32 = load b0[4*i0 + i1]
            r0: f32x4 = add r0 r1
          }
        }
        r2: f32x4 = add r0 r0
        r3: f32 = lane r2 0
        r4: f32 = lane r2 1
        r5: f32 = lane r2 2
        r6: f32 = lane r2 3
        r7: f32 = add r3 r4
        r8: f32 = add r5 r6
        r9: f32 = add r7 r8
        store b1[0] = r9
      }";
    let a = ramp(32);
    let want = 2.0 * a.iter().sum::<f32>();
    assert_eq!(run_f32(text, &[], &[a, vec![0.0]]).unwrap(), [want]);
}

#[test]
fn index_terms_and_branches() {
    let text = "loops @ix(b0: i64[6] in, b1: f32[12] in, b2: f32[6] out) {
        for i0 serial 0..6 {
          r0: i64 = load b0[i0]
          r1: f32 = load b1[2*r0 + rem(i0 + 1, 2)]
          r2: f32 = const f32 1.5
          r3: bool = inbounds(i0 - 2 in 0..2, r0 in 0..6)
          r4: f32 = select r3 r2 r1
          r5: f32 = copy r4
          if (div(i0, 3) in 0..1) {
            store b2[5 - i0] = r5
          }
          if (3 - i0 in 0..1) {
            store b2[0] = r2
          }
        }
      }";
    let index = [5i64, 4, 3, 2, 1, 0];
    let table = ramp(12);
    let mut out = [0u8; 24];
    let bytes: Vec<u8> = index.iter().flat_map(|x| x.to_le_bytes()).collect();
    let values: Vec<u8> = table.iter().flat_map(|x| x.to_le_bytes()).collect();
    run(
        &kernel(text),
        &|_| None,
        &[bytes[..].into(), values[..].into(), (&mut out[..]).into()],
    )
    .unwrap();
    let got: Vec<f32> = out
        .chunks_exact(4)
        .map(|c| f32::from_le_bytes(c.try_into().unwrap()))
        .collect();
    assert_eq!(got, [1.5, 0.0, 0.0, 1.5, table[8], table[11]]);
}

/// C[M,N] (+)= A[M,K] B[K,N], B in panels of 32.
fn product(m: usize, n: usize, k: usize, a: &[f32], b: &[f32], start: &[f32]) -> Vec<f32> {
    let mut c = start.to_vec();
    for i in 0..m {
        for j in 0..n {
            for t in 0..k {
                c[i * n + j] = a[i * k + t].mul_add(b[(j / 32 * k + t) * 32 + j % 32], c[i * n + j]);
            }
        }
    }
    c
}

#[test]
fn tiles() {
    for (sign, start) in [("=", 0.0), ("+=", 3.0)] {
        let text = format!(
            "loops @mm(b0: f32[70] in, b1: f32[640] in, b2: f32[280] out) {{
            for i0 serial 0..2 {{
              for i1 serial 0..3 {{
                tile b2[120*i0 + 32*i1; row 40] {sign} b0[30*i0; row 10, k 1] * b1[320*i1]
                  sum(1 by 0, 2 by 5, 5) rows least(7 - 3*i0, 3) max 4 cols least(40 - 32*i1, 32)
              }}
            }}
          }}"
        );
        let text = text.replace("0..3 {", "0..2 {");
        let (a, b) = (ramp(70), ramp(640));
        let got = run_f32(&text, &[], &[a.clone(), b.clone(), vec![3.0; 280]]).unwrap();
        let mut want = product(7, 40, 10, &a, &b, &[start; 280]);
        want[240..].fill(3.0);
        assert_eq!(got, want);
    }
    // A row over two panels of five steps each.
    let wide = "loops @row(b0: f32[5] in, b1: f32[320] in, b2: f32[64] out) {
        tile b2[0; row 0] = b0[0; row 0, k 1] * b1[0] sum(1 by 0, 1 by 0, 5) rows 1 max 1 cols 64
      }";
    let (a, b) = (ramp(5), ramp(320));
    let got = run_f32(wide, &[], &[a.clone(), b.clone(), vec![0.0; 64]]).unwrap();
    assert_eq!(got, product(1, 64, 5, &a, &b, &[0.0; 64]));
    let bad = "loops @mm(b0: f32[8] in, b1: f32[64] in, b2: f32[64] out) {
        r0: i64 = index 3
        tile b2[0; row 32] = b0[0; row 2, k 1] * b1[0] sum(1 by 0, 1 by 0, 2) rows r0 max 2 cols 32
      }";
    let e = run_f32(bad, &[], &[ramp(8), ramp(64), ramp(64)]).unwrap_err();
    assert_eq!(
        e,
        "@mm, statement 1: a tile of 3 rows and 32 columns, expected at most 2 and 32"
    );
}

const MATMUL: &str = "loops @mm(b0: f32[m*k] in, b1: f32[k*n] in, b2: f32[m*n] out) symbols(m, n, k) {
    buffer b3: f32[64] shared
    buffer b4: f32[64] shared
    buffer b5: f32[2] private
    for i0 block.y 0..ceildiv(m, 8) {
      for i1 block.x 0..ceildiv(n, 8) {
        for i2 thread.y 0..8 {
          for i3 thread.x 0..4 {
            r0: f32 = const f32 0.0
            for i4 serial 0..2 { store b5[i4] = r0 }
            for i5 serial 0..ceildiv(k, 8) {
              for i6 serial 0..2 {
                r1: f32 = load b0[(k)*(8*i0 + i2) + 8*i5 + i3 + 4*i6]
                  where (8*i0 + i2 in 0..m, 8*i5 + i3 + 4*i6 in 0..k) else f32 0.0
                store b3[8*i2 + i3 + 4*i6] = r1
                r2: f32 = load b1[(n)*(8*i5 + i2) + 8*i1 + i3 + 4*i6]
                  where (8*i5 + i2 in 0..k, 8*i1 + i3 + 4*i6 in 0..n) else f32 0.0
                store b4[8*i2 + i3 + 4*i6] = r2
              }
              barrier
              for i7 serial 0..8 {
                r3: f32 = load b3[8*i2 + i7]
                for i8 unrolled 0..2 {
                  r4: f32 = load b4[8*i7 + i3 + 4*i8]
                  r5: f32 = load b5[i8]
                  r6: f32 = fma r3 r4 r5
                  store b5[i8] = r6
                }
              }
              barrier
            }
            for i9 serial 0..2 {
              if (8*i0 + i2 in 0..m, 8*i1 + i3 + 4*i9 in 0..n) {
                r7: f32 = load b5[i9]
                store b2[(n)*(8*i0 + i2) + 8*i1 + i3 + 4*i9] = r7
              }
            }
          }
        }
      }
    }
  }";

#[test]
fn a_gpu_product_with_shared_memory() {
    let (m, n, k) = (19usize, 13usize, 21usize);
    let (a, b) = (ramp(m * k), ramp(k * n));
    let mut want = vec![0f32; m * n];
    for (p, w) in want.iter_mut().enumerate() {
        *w = (0..k).map(|t| a[p / n * k + t] * b[t * n + p % n]).sum();
    }
    let symbols = [("m", m as i64), ("n", n as i64), ("k", k as i64)];
    assert_eq!(run_f32(MATMUL, &symbols, &[a, b, vec![0.0; m * n]]).unwrap(), want);
}

#[test]
fn a_missing_barrier_is_a_race() {
    let run = |text: &str| {
        let symbols = [("m", 8), ("n", 8), ("k", 16)];
        run_f32(text, &symbols, &[ramp(128), ramp(128), ramp(64)])
    };
    assert!(run(MATMUL).is_ok());
    // Both barriers matter: the first lets threads read what others wrote, the second lets them write again.
    let (before, after) = MATMUL.split_once("barrier").unwrap();
    let e = run(&format!("{before}{after}")).unwrap_err();
    assert!(e.contains("which was not written") || e.contains("a race"), "{e}");
    let (before, after) = MATMUL.rsplit_once("barrier").unwrap();
    let e = run(&format!("{before}{after}")).unwrap_err();
    assert!(e.contains("a race: thread"), "{e}");
    assert!(e.starts_with("@mm, statement 0.0.0.0.2."), "{e}");
}

#[test]
fn races_of_blocks_threads_and_workers() {
    let text = |kind: &str, index: &str| {
        format!(
            "loops @r(b0: f32[4] out) {{
               for i0 {kind} 0..4 {{
                 r0: f32 = const f32 1.0
                 store b0[{index}] = r0
               }}
             }}"
        )
    };
    for kind in ["parallel", "block.x", "thread.x"] {
        assert_eq!(run_f32(&text(kind, "3 - i0"), &[], &[vec![0.0; 4]]).unwrap(), [1.0; 4]);
        let e = run_f32(&text(kind, "div(i0, 2)"), &[], &[vec![0.0; 4]]).unwrap_err();
        assert!(e.contains("a race:") && e.contains("writes b0[0]"), "{e}");
    }
    assert!(run_f32(&text("serial", "div(i0, 2)"), &[], &[vec![0.0; 4]]).is_ok());
    // A read of what another iteration writes.
    let read = "loops @r(b0: f32[4] out) {
        for i0 parallel 0..4 {
          r0: f32 = load b0[rem(i0 + 1, 4)]
          store b0[i0] = r0
        }
      }";
    let e = run_f32(read, &[], &[vec![0.0; 4]]).unwrap_err();
    assert_eq!(e, "@r, statement 0.1: a race: thread 0 of block 1 writes b0[1]");
}

#[test]
fn what_a_parallel_loop_leaves_is_there_for_the_next_one() {
    // Each round adds a shifted copy of what the one before left.
    let text = |offset: &str, to: &str| {
        format!(
            "loops @f(b0: f32[8] in, b1: f32[8] out) {{
               buffer b2: f32[16] kernel
               buffer b3: f32[1] worker
               for i0 unrolled 0..1 {{
                 for i1 serial 0..8 {{
                   r0: f32 = load b0[i1]
                   store b2[i1] = r0
                 }}
                 for i2 serial 0..3 {{
                   for i3 parallel(100 from 10) 0..8 {{
                     r1: f32 = load b2[8*rem(i2, 2) + i3]
                     r2: f32 = load b2[8*rem(i2, 2) + i3 - {offset}] where (i3 - {offset} in 0..8) else f32 0.0
                     r3: f32 = add r1 r2
                     store b3[0] = r3
                     r4: f32 = load b3[0]
                     store b2[{to}] = r4
                   }}
                 }}
                 for i4 serial 0..8 {{
                   r5: f32 = load b2[i4 + 8]
                   store b1[i4] = r5
                 }}
               }}
             }}"
        )
    };
    let buffers = [vec![1.0; 8], vec![0.0; 8]];
    let good = text("i2 + 1", "8*rem(i2 + 1, 2) + i3");
    let found = run_f32(&good, &[], &buffers).unwrap();
    // In round 0 the element behind, in round 1 the element itself, in round 2 the one before.
    let mut rows = vec![1.0f32; 8];
    for round in 0..3i32 {
        let at = |i: i32| if (0..8).contains(&i) { rows[i as usize] } else { 0.0 };
        rows = (0..8).map(|i| at(i) + at(i - round + 1)).collect();
    }
    assert_eq!(found, rows);
    let e = run_f32(&text("1", "8*rem(i2, 2) + i3"), &[], &buffers).unwrap_err();
    assert!(e.contains("a race:") && e.starts_with("@f, statement 0.1.0."), "{e}");
    let unwritten = good.replace("load b2[i4 + 8]", "load b2[i4 + 9]");
    let e = run_f32(&unwritten, &[], &buffers).unwrap_err();
    assert!(e.contains("b2[16], which has 16 elements"), "{e}");
    let kept = good.replace("store b3[0] = r3\n", "\n");
    let e = run_f32(&kept, &[], &buffers).unwrap_err();
    assert!(e.contains("load from b3[0], which was not written"), "{e}");
}

#[test]
fn divergent_barriers_are_found() {
    let text = "loops @d(b0: f32[4] out) {
        for i0 thread.x 0..4 {
          if (i0 in 0..2) { barrier }
        }
      }";
    let e = run_f32(text, &[], &[vec![0.0; 4]]).unwrap_err();
    assert_eq!(
        e,
        "@d, statement 0.0.0: thread 2 of block 0 does not meet the others here"
    );
}

#[test]
fn bad_accesses_are_found() {
    let out =
        |index: &str| format!("loops @o(b0: f32[n] in, b1: f32[n] out) symbols(n) {{ r0: f32 = load b0[{index}] }}");
    for (index, found) in [
        ("n", "load from b0[4], which has 4 elements"),
        ("-1", "load from b0[-1], which has 4 elements"),
    ] {
        let e = run_f32(&out(index), &[("n", 4)], &[ramp(4), ramp(4)]).unwrap_err();
        assert_eq!(e, format!("@o, statement 0: {found}"));
    }
    let store = "loops @o(b0: f32[4] out) { for i0 vector 0..8 { r0: f32 = const f32 0.0 store b0[i0] = r0 } }";
    let e = run_f32(store, &[], &[ramp(4)]).unwrap_err();
    assert_eq!(e, "@o, statement 0.1: store to b0[4], which has 4 elements");
    let scratch = "loops @s(b0: f32[4] out) {
        buffer b1: f32[4] worker
        for i0 parallel 0..4 {
          if (i0 in 0..1) {
            r0: f32 = const f32 0.0
            store b1[0] = r0
          }
          r1: f32 = load b1[0]
          store b0[i0] = r1
        }
      }";
    let e = run_f32(scratch, &[], &[ramp(4)]).unwrap_err();
    assert_eq!(e, "@s, statement 0.1: load from b1[0], which was not written");
    let e = run_f32(&out("0"), &[("n", 4)], &[ramp(4), ramp(5)]).unwrap_err();
    assert_eq!(e, "@o: buffer b1 has 20 bytes, expected 4 elements of f32");
    let e = run_f32(&out("0"), &[], &[ramp(4), ramp(4)]).unwrap_err();
    assert_eq!(e, "@o, buffer b0: the symbol `n` has no value");
    let divide = "loops @o(b0: f32[n] out) symbols(n) { r0: i64 = index div(n, n - 4) }";
    let e = run_f32(divide, &[("n", 4)], &[ramp(4)]).unwrap_err();
    assert_eq!(e, "@o, statement 0: a division by `n - 4`, which is 0");
    // In a loop that does not run it is no error.
    let never = "loops @o(b0: f32[n] out) symbols(n) {
        for i0 serial 0..n - 4 { r0: i64 = index div(i0, n - 4) }
      }";
    assert!(run_f32(never, &[("n", 4)], &[ramp(4)]).is_ok());
}

#[test]
fn other_dtypes() {
    let text = "loops @c(b0: f16[3] in, b1: u8[3] out) {
        for i0 serial 0..3 {
          r0: f16 = load b0[i0]
          r1: f32 = cast f32 r0
          r2: f32 = const f32:0x40000000
          r3: f32 = mul r1 r2
          r4: u8 = cast u8 r3
          store b1[i0] = r4
        }
      }";
    let input: Vec<u8> = [0.5f32, 300.0, 7.25]
        .iter()
        .flat_map(|x| half::f16::from_f32(*x).to_le_bytes())
        .collect();
    let mut out = [0u8; 3];
    run(&kernel(text), &|_| None, &[input[..].into(), (&mut out[..]).into()]).unwrap();
    assert_eq!(out, [1, 255, 14]);
}

#[test]
fn one_buffer_may_be_two_parameters() {
    let text = "loops @neg(b0: f32[4] in, b1: f32[4] out) {
        for i0 parallel 0..4 {
          r0: f32 = load b0[i0]
          r1: f32 = neg r0
          store b1[i0] = r1
        }
      }";
    let mut bytes: Vec<u8> = ramp(4).iter().flat_map(|x| x.to_le_bytes()).collect();
    let shared = BufferData::from(&mut bytes[..]);
    run(&kernel(text), &|_| None, &[shared, shared]).unwrap();
    let got: Vec<f32> = bytes
        .chunks_exact(4)
        .map(|c| -f32::from_le_bytes(c.try_into().unwrap()))
        .collect();
    assert_eq!(got, ramp(4));
}

#[test]
fn checks_are_reported_after_the_kernel() {
    let text = "loops @check(b0: i64[19] in, b1: i64[19] out) {
      for i0 serial 0..1 {
        for i1 vector 0..16 {
          r0: i64 = load b0[i1]
          r1: bool = inbounds(r0 in 0..5)
          check 1 r1
          store b1[i1] = r0
        }
        for i2 serial 0..3 {
          r2: i64 = load b0[i2 + 16]
          r3: bool = inbounds(r2 in 0..5)
          check 0 r3
          store b1[i2 + 16] = r2
        }
      }
    }";
    let k = kernel(text);
    assert_eq!(k.checks(), 2);
    for (bad, check) in [(None, None), (Some(15), Some(1)), (Some(18), Some(0))] {
        let mut given: Vec<i64> = (0..19).map(|i| i % 5).collect();
        if let Some(i) = bad {
            given[i] = -1;
        }
        let given: Vec<u8> = given.iter().flat_map(|x| x.to_le_bytes()).collect();
        let mut found = vec![0u8; given.len()];
        let result = run(&k, &|_| None, &[(&given[..]).into(), (&mut found[..]).into()]);
        assert_eq!(result.map_err(|e| e.check).err(), check.map(Some));
        assert_eq!(found, given);
    }
}
