use super::interp::run;
use super::*;
use crate::Tensor;

fn parse(text: &str) -> Kernel {
    let k: Kernel = text.parse().unwrap_or_else(|e| panic!("{e} in\n{text}"));
    assert_eq!(k.to_string().parse::<Kernel>().as_ref(), Ok(&k), "{k}");
    k
}

#[track_caller]
fn eval(text: &str, symbols: &[(&str, i64)], inputs: &[Tensor]) -> Vec<Tensor> {
    let lookup = |s: &str| symbols.iter().find(|(n, _)| *n == s).map(|(_, v)| *v);
    run(&parse(text), &lookup, inputs).unwrap_or_else(|e| panic!("{e}"))
}

#[track_caller]
fn fails(text: &str, inputs: &[Tensor], message: &str) {
    assert_eq!(run(&parse(text), &|_| None, inputs).unwrap_err().to_string(), message);
}

fn first(k: &mut Kernel) -> &mut Stage {
    match &mut k.parts[0] {
        Part::Stage(s) => s,
        Part::Loop(_) => panic!("a loop"),
    }
}

fn ramp(shape: &[usize]) -> Tensor {
    Tensor::from_fn(DType::F32, shape, |i| Number::Float(((i * 7 + 3) % 11) as f64 - 4.0))
}

const NORMALIZE: &str = "kernel @normalize(o0: f32[n, 5] in, o1: f32[n, 5] out) symbols(n) outer(n) {
  local l0: f32[]
  local l1: f32[]
  local l2: f32[5]
  stage reduce(5) {
    read o0[i0, i1]
    body (v0: f32) { } -> v0
    combine free init(f32:0xff800000) (v0: f32, v1: f32) { v2 = max v0 v1 } -> v2
      merge (v0: f32, v1: f32) { v2 = max v0 v1 } -> v2
    write l0[]
  }
  stage parallel(5) {
    read o0[i0, i1]
    read l0[]
    body (v0: f32, v1: f32) { v2 = sub v0 v1; v3 = mul v2 v2; v4 = const f32 1.0; v5 = add v3 v4 } -> v5
    write l2[i1]
  }
  stage reduce(5) {
    read l2[i1]
    body (v0: f32) { } -> v0
    combine free init(f32 0.0) (v0: f32, v1: f32) { v2 = add v0 v1 } -> v2
      merge (v0: f32, v1: f32) { v2 = add v0 v1 } -> v2
    write l1[]
  }
  stage parallel(5) {
    read l2[i1]
    read l1[]
    body (v0: f32, v1: f32) { v2 = div v0 v1 } -> v2
    write o1[i0, i1]
  }
}";

#[test]
fn stages_over_locals() {
    let x = ramp(&[3, 5]);
    let y = &eval(NORMALIZE, &[("n", 3)], std::slice::from_ref(&x))[0];
    for i in 0..3 {
        let row: Vec<f32> = x.to_f32s()[5 * i..5 * i + 5].to_vec();
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let terms: Vec<f32> = row.iter().map(|v| (v - max) * (v - max) + 1.0).collect();
        let sum: f32 = terms.iter().sum();
        for (j, t) in terms.iter().enumerate() {
            assert_eq!(y.at(&[i, j]).f64(), (t / sum) as f64);
        }
    }
    assert_eq!(eval(NORMALIZE, &[("n", 0)], &[ramp(&[0, 5])])[0].shape(), [0, 5]);
}

#[test]
fn a_convolution_with_guards() {
    let text = "kernel @conv(o0: f32[2, 6, 7] in, o1: f32[3, 2, 3, 3] in, o2: f32[3, 3, 4] out) outer(3, 3, 4) {
      stage reduce(2, 3, 3) {
        read o0[i3, 2*i1 + i4 - 1, 2*i2 + i5 - 1]
          where (2*i1 + i4 - 1 in 0..6, 2*i2 + i5 - 1 in 0..7) else f32 0.5
        read o1[i0, i3, i4, i5]
        body (v0: f32, v1: f32) { v2 = mul v0 v1 } -> v2
        combine free init(f32 0.0) (v0: f32, v1: f32) { v2 = add v0 v1 } -> v2
          merge (v0: f32, v1: f32) { v2 = add v0 v1 } -> v2
        write o2[i0, i1, i2]
      }
    }";
    let (x, w) = (ramp(&[2, 6, 7]), ramp(&[3, 2, 3, 3]));
    let y = &eval(text, &[], &[x.clone(), w.clone()])[0];
    for p in crate::indices(&[3, 3, 4]) {
        let mut sum = 0.0;
        for q in crate::indices(&[2, 3, 3]) {
            let (h, v) = (2 * p[1] + q[1], 2 * p[2] + q[2]);
            let inside = (1..=6).contains(&h) && (1..=7).contains(&v);
            let a = if inside { x.at(&[q[0], h - 1, v - 1]).f64() } else { 0.5 };
            sum += a * w.at(&[p[0], q[0], q[1], q[2]]).f64();
        }
        assert_eq!(y.at(&p).f64(), sum);
    }
}

#[test]
fn a_gather_by_computed_indices() {
    let text = "kernel @take(o0: i32[4] in, o1: f32[n, 2] in, o2: f32[4, 2] out) symbols(n) outer(4, 2) {
      stage {
        read o0[i0]
        index n
        compute(r0, r1) (v0: i32, v1: i64) {
          v2 = cast i64 v0; v3 = const i64 0; v4 = lt v2 v3; v5 = add v2 v1; v6 = select v4 v5 v2 } -> v6
        read o1[r2, i1] where (r2 in 0..n) else f32 -1.0
        inbounds(r2 in 0..n)
        body (v0: i32, v1: i64, v2: i64, v3: f32, v4: bool) { v5 = cast f32 v4; v6 = add v3 v5 } -> v6
        write o2[i0, i1]
      }
    }";
    let indices = Tensor::from_fn(DType::I32, &[4], |i| Number::Int([2, -1, 7, 0][i]));
    let table = ramp(&[3, 2]);
    let y = &eval(text, &[("n", 3)], &[indices, table.clone()])[0];
    let t = |i: usize, j: usize| table.at(&[i, j]).f64() + 1.0;
    assert_eq!(
        y.to_f64s(),
        [t(2, 0), t(2, 1), t(2, 0), t(2, 1), -1.0, -1.0, t(0, 0), t(0, 1)]
    );
}

#[test]
fn an_argmax_by_a_tuple() {
    let text = "kernel @argmax(o0: f32[3, 6] in, o1: f32[3] out, o2: i64[3] out) outer(3) {
      stage reduce(6) {
        read o0[i0, i1]
        index i1
        body (v0: f32, v1: i64) { } -> (v0, v1)
        combine init(f32:0xff800000, i64 0)
          (v0: f32, v1: i64, v2: f32, v3: i64) { v4 = lt v0 v2; v5 = select v4 v2 v0; v6 = select v4 v3 v1 } -> (v5, v6)
          merge
          (v0: f32, v1: i64, v2: f32, v3: i64) { v4 = lt v0 v2; v5 = select v4 v2 v0; v6 = select v4 v3 v1 } -> (v5, v6)
        write o1[i0]
        write o2[i0]
      }
    }";
    let x = ramp(&[3, 6]);
    let y = eval(text, &[], std::slice::from_ref(&x));
    for i in 0..3 {
        let row = &x.to_f32s()[6 * i..6 * i + 6];
        let at = (0..6).rev().max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap();
        assert_eq!((y[0].get(i).f64(), y[1].get(i).int()), (row[at] as f64, at as i128));
    }
}

/// Points run side by side, in strips of lanes: over the widest outer dimension, or over one of the stage's own.
#[test]
fn many_points() {
    let text =
        "kernel @wide(o0: f32[3, 150] in, o1: i64[150] in, o2: f32[150, 3] out, o3: f32[3, 150] out) outer(3, 150) {
      local l0: f32[2]
      stage parallel(2) {
        read o0[i0, -2*i1 + 3*i2 + 200] where (-2*i1 + 3*i2 + 200 in 0..150) else f32 -1.0
        body (v0: f32) { } -> v0
        write l0[1 - i2]
      }
      stage reduce(2, 3) {
        read l0[i2]
        read o1[i1]
        read o0[i3, r1] where (r1 + i2 in 0..150, r1 in 0..150) else f32 0.5
        read o0[i0, rem(i1 + i3, 150)] where (3*i1 + i3 - 7 in 0..200) else f32 0.25
        body (v0: f32, v1: i64, v2: f32, v3: f32) { v4 = mul v0 v2; v5 = add v4 v3 } -> v5
        combine free init(f32 0.0) (v0: f32, v1: f32) { v2 = add v0 v1 } -> v2
          merge (v0: f32, v1: f32) { v2 = add v0 v1 } -> v2
        write o2[149 - i1, i0]
      }
      stage { read o2[149 - i1, i0] index i1 body (v0: f32, v1: i64) { v2 = cast f32 v1; v3 = add v0 v2 } -> v3
        write o3[i0, i1] }
    }";
    let x = ramp(&[3, 150]);
    let at: Vec<i64> = (0..150).map(|i| (i * 37 + 5) % 160 - 5).collect();
    let y = eval(text, &[], &[x.clone(), Tensor::from_i64(&[150], &at)]);
    let get = |i: usize, j: i64, ok: bool, fill: f32| if ok { x.at(&[i, j as usize]).f64() as f32 } else { fill };
    for i in 0..3usize {
        for j in 0..150i64 {
            let near = |c: i64| {
                let k = -2 * j + 3 * c + 200;
                get(i, k, (0..150).contains(&k), -1.0)
            };
            let mut sum = 0f32;
            for b in 0..2i64 {
                for c in 0..3i64 {
                    let k = at[j as usize];
                    let ok = (0..150).contains(&(k + b)) && (0..150).contains(&k);
                    let far = get(c as usize, k, ok, 0.5);
                    let late = get(i, (j + c) % 150, (0..200).contains(&(3 * j + c - 7)), 0.25);
                    sum += near(1 - b) * far + late;
                }
            }
            assert_eq!(y[0].at(&[149 - j as usize, i]).f64(), sum as f64, "({i}, {j})");
            assert_eq!(y[1].at(&[i, j as usize]).f64(), (sum + j as f32) as f64, "({i}, {j})");
        }
    }
    // The same without an outer domain: the stage's own widest dimension gets the lanes.
    let own = "kernel @own(o0: f32[3, 150] in, o1: f32[150, 3] out) outer() {
      local l0: f32[150]
      stage parallel(150) reduce(3) {
        read o0[i1, 149 - i0] where (i0 + i1 - 1 in 0..149) else f32 9.0
        body (v0: f32) { } -> v0
        combine free init(f32 0.0) (v0: f32, v1: f32) { v2 = add v0 v1 } -> v2
          merge (v0: f32, v1: f32) { v2 = add v0 v1 } -> v2
        write l0[i0]
      }
      stage parallel(3, 150) { read l0[i1] read o0[i0, i1] body (v0: f32, v1: f32) { v2 = add v0 v1 } -> v2 write o1[i1, i0] }
    }";
    let y = &eval(own, &[], std::slice::from_ref(&x))[0];
    for j in 0..150usize {
        let sum: f64 = (0..3)
            .map(|i| {
                if (1..150).contains(&(i + j)) {
                    x.at(&[i, 149 - j]).f64()
                } else {
                    9.0
                }
            })
            .sum();
        (0..3).for_each(|i| assert_eq!(y.at(&[j, i]).f64(), sum + x.at(&[i, j]).f64()));
    }
    let copy = "kernel @k(o0: f32[200] in, o1: f32[200] out) outer(200) {
      stage { read o0[i0 + 1] body (v0: f32) { } -> v0 write o1[i0] } }";
    fails(
        copy,
        &[ramp(&[200])],
        "@k, stage 0 at (199): read 0: index 200 of dimension 0, which has extent 200",
    );
    let twice = "kernel @k(o0: f32[200] in, o1: f32[200] out) outer(200) {
      stage { read o0[i0] body (v0: f32) { } -> v0 write o1[div(i0, 2)] } }";
    assert!(
        run(&parse(twice), &|_| None, &[ramp(&[200])])
            .unwrap_err()
            .message
            .contains("element 0 is written twice")
    );
    let scan = "kernel @s(o0: f32[3, 100] in, o1: f32[3, 100] out) outer(100) {
      stage reduce(3) scan {
        read o0[i1, i0]
        body (v0: f32) { } -> v0
        combine init(f32 0.0, f32 1.0) (v0: f32, v1: f32, v2: f32) { v3 = add v0 v2 } -> (v1, v3)
          merge (v0: f32, v1: f32, v2: f32, v3: f32) { } -> (v0, v1)
        write o1[i1, i0]
        write o1[i1, i0]
      }
    }";
    let y = &eval(scan, &[], &[ramp(&[3, 100])])[0];
    let x = ramp(&[3, 100]);
    for j in 0..100 {
        let (mut a, mut b) = (0.0, 1.0);
        for i in 0..3 {
            (a, b) = (b, a + x.at(&[i, j]).f64());
            assert_eq!(y.at(&[i, j]).f64(), b);
        }
    }
}

const CUMSUM: &str = "kernel @cumsum(o0: f32[2, 4] in, o1: f32[2, 4] out) outer(2) {
  stage reduce(4) scan {
    read o0[i0, i1]
    body (v0: f32) { } -> v0
    combine init(f32 0.0) (v0: f32, v1: f32) { v2 = add v0 v1 } -> v2
      merge (v0: f32, v1: f32) { v2 = add v0 v1 } -> v2
    write o1[i0, i1]
  }
}";

#[test]
fn a_scan() {
    let y = &eval(
        CUMSUM,
        &[],
        &[Tensor::from_f32(&[2, 4], &[1., 2., 3., 4., 5., 6., 7., 8.])],
    )[0];
    assert_eq!(y.to_f32s(), [1., 3., 6., 10., 5., 11., 18., 26.]);
}

const SCATTER: &str = "kernel @scatter(o0: f32[4, 2] in, o1: i64[3] in, o2: f32[3, 2] in, o3: f32[4, 2] out) outer() {
  stage parallel(4, 2) {
    read o0[i0, i1]
    body (v0: f32) { } -> v0
    write o3[i0, i1]
  }
  stage parallel(3, 2) scatter {
    read o1[i0]
    read o2[i0, i1]
    read o3[r0, i1] where (r0 in 0..4) else f32 0.0
    body (v0: i64, v1: f32, v2: f32) { v3 = add v1 v2 } -> v3
    write o3[r0, i1]
  }
}";

#[test]
fn a_scatter_that_adds() {
    let inputs = [
        Tensor::from_f32(&[4, 2], &[0., 1., 2., 3., 4., 5., 6., 7.]),
        Tensor::from_i64(&[3], &[2, 9, 2]),
        Tensor::from_f32(&[3, 2], &[10., 20., 30., 40., 50., 60.]),
    ];
    let y = &eval(SCATTER, &[], &inputs)[0];
    assert_eq!(y.to_f32s(), [0., 1., 2., 3., 64., 85., 6., 7.]);
}

#[test]
fn panels() {
    let pack = "kernel @pack(o0: f32[3, 40] in, o1: f32[3, 40] out layout(1, 0, 1:32)) outer(3, 40) {
      stage { read o0[i0, i1] body (v0: f32) { } -> v0 write o1[i0, i1] }
    }";
    let unpack = pack
        .replace("in,", "in layout(1, 0, 1:32),")
        .replace("out layout(1, 0, 1:32)", "out");
    let x = ramp(&[3, 40]);
    let p = &eval(pack, &[], std::slice::from_ref(&x))[0];
    assert_eq!(p.shape(), [2, 3, 32]);
    assert_eq!(p.at(&[1, 2, 5]).f64(), x.at(&[2, 37]).f64());
    assert_eq!(p.at(&[1, 2, 8]).f64(), 0.0);
    assert_eq!(eval(&unpack, &[], std::slice::from_ref(p))[0], x);
}

/// Tiles of 4 of a matrix that is cut short along both, more of them than lanes, and of one that has no last tile.
#[test]
fn a_domain_that_is_cut_short() {
    let twice =
        "kernel @k(o0: f32[n, m] in, o1: f32[n, m] out) symbols(n, m) outer(floordiv(n + 3, 4), floordiv(m + 3, 4)) {
      stage parallel(4, 4) where (4*i0 + i2 in 0..n, 4*i1 + i3 in 0..m) {
        read o0[4*i0 + i2, 4*i1 + i3]
        body (v0: f32) { v1 = add v0 v0 } -> v1
        write o1[4*i0 + i2, 4*i1 + i3]
      }
    }";
    for (n, m) in [(5, 43), (8, 4), (3, 1), (41, 7), (0, 3)] {
        let x = ramp(&[n, m]);
        let y = &eval(twice, &[("n", n as i64), ("m", m as i64)], std::slice::from_ref(&x))[0];
        let want: Vec<f32> = x.to_f32s().iter().map(|x| x + x).collect();
        assert_eq!(y.to_f32s(), want, "{n} by {m}");
    }
    let whole = twice.replace(" where (4*i0 + i2 in 0..n, 4*i1 + i3 in 0..m)", "");
    let k: Kernel = whole.parse().expect("a kernel");
    let symbols = |s: &str| Some(if s == "n" { 4 } else { 5 });
    let e = run(&k, &symbols, &[ramp(&[4, 5])]).expect_err("a read behind the end");
    assert!(e.to_string().contains("index 5 of dimension 1"), "{e}");
}

#[test]
fn what_the_interpreter_reports() {
    let copy = |read: &str, write: &str, outer: &str| {
        format!(
            "kernel @k(o0: f32[4] in, o1: f32[4] out) outer({outer}) {{
              stage {{ read o0[{read}] body (v0: f32) {{ }} -> v0 write o1[{write}] }} }}"
        )
    };
    let x = [ramp(&[4])];
    assert_eq!(eval(&copy("3 - i0", "i0", "4"), &[], &x)[0].get(0), x[0].get(3));
    fails(
        &copy("i0 + 1", "i0", "4"),
        &x,
        "@k, stage 0 at (3): read 0: index 4 of dimension 0, which has extent 4",
    );
    fails(
        &copy("i0", "i0 + 1", "4"),
        &x,
        "@k, stage 0 at (3): write 0: index 4 of dimension 0, which has extent 4",
    );
    fails(
        &copy("i0", "div(i0, 2)", "4"),
        &x,
        "@k, stage 0 at (1): write 0: element 0 is written twice",
    );
    fails(&copy("i0", "2*i0", "2"), &x, "@k: element 1 of o1 is never written");
    fails(&copy("i0", "i0", "4"), &[], "@k: 0 tensors given, 1 expected");
    fails(
        &copy("i0", "i0", "4"),
        &[ramp(&[4]), ramp(&[4])],
        "@k: 2 tensors given, 1 expected",
    );
    fails(
        &copy("i0", "i0", "4"),
        &[ramp(&[3])],
        "@k: o0: found f32[3], expected f32[4]",
    );
    let other_point = "kernel @k(o0: f32[4] in, o1: f32[4] out, o2: f32[4] out) outer(4) {
      stage { read o0[i0] body (v0: f32) { } -> v0 write o1[i0] }
      stage { read o1[rem(i0 + 3, 4)] body (v0: f32) { } -> v0 write o2[i0] } }";
    fails(other_point, &x, "@k, stage 1 at (0): read 0: element 3 was not written");
    let earlier = other_point.replace("rem(i0 + 3, 4)", "0");
    fails(
        &earlier,
        &x,
        "@k, stage 1 at (1): read 0: element 0 was written by another outer point",
    );
    let local = "kernel @k(o0: f32[4] in, o1: f32[4] out) outer(4) {
      local l0: f32[2]
      stage { read o0[i0] body (v0: f32) { } -> v0 write l0[0] }
      stage { read l0[1] body (v0: f32) { } -> v0 write o1[i0] } }";
    fails(local, &x, "@k, stage 1 at (0): read 0: element 1 was not written");
    fails(
        "kernel @k(o0: f32[n] out) symbols(n) outer(n) { stage { body () { v0 = const f32 1.0 } -> v0 write o0[i0] } }",
        &[],
        "@k: the symbol `n` has no value",
    );
}

#[track_caller]
fn reject(text: &str, message: &str) {
    let k: Kernel = text.parse().unwrap_or_else(|e| panic!("{e} in\n{text}"));
    assert_eq!(k.verify().unwrap_err(), format!("kernel @{}{message}", k.name));
}

/// A kernel of one stage over `i0 < 4`, `i1 < n`.
fn one(stage: &str) -> String {
    format!(
        "kernel @k(o0: f32[4, n] in, o1: i64[4] in, o2: f32[4, n] out) symbols(n) outer(4, n) {{ local l0: f32[] {stage} }}"
    )
}

#[test]
fn rejected_declarations() {
    reject(
        "kernel @k(o0: f32[m] in) outer() { }",
        ": o0: the symbol `m` is not declared",
    );
    reject("kernel @k(o0: f32[-1] in) outer() { }", ": o0: an extent of -1");
    reject(
        "kernel @k(o0: f32[4] in layout(1, 0, 1:32)) outer() { }",
        ": o0: the layout (1, 0, 1:32) of 2 axes for rank 1",
    );
    reject("kernel @k() outer(n) { }", ": outer: the symbol `n` is not declared");
    reject(
        "kernel @k() outer() { local l0: f32[n] }",
        ": l0: the symbol `n` is not declared",
    );
    reject(
        "kernel @k() outer() { stage parallel(n) { body () { } -> () } }",
        ": stage 0: the symbol `n` is not declared",
    );
    reject(&one(""), ": no stage writes o2");
}

#[test]
fn rejected_stages() {
    let id = "body (v0: f32) { } -> v0";
    let w = "write o2[i0, i1]";
    let stage = |reads: &str, rest: &str| one(&format!("stage {{ {reads} {rest} }}"));
    let s = |reads: &str, message: &str| reject(&stage(reads, &format!("{id} {w}")), &format!(", stage 0: {message}"));
    s("read o0[i0]", "read 0: 1 indices for o0 of rank 2");
    s("read l0[]", "read 0: l0 is not written by an earlier stage");
    s("read o2[i0, i1]", "read 0: o2 is not written by an earlier stage");
    s("read o0[i0, i2]", "read 0: i2 is no variable of this stage");
    s("read o0[r0, i1]", "read 0: r0 is no earlier read");
    s(
        "read o0[i0, i1] read o0[r0, i1]",
        "read 1: r0 is f32, expected i64 in an index",
    );
    s(
        "read o0[i0, i1] where (i0 in 0..m) else f32 0.0",
        "read 0: the symbol `m` is not declared",
    );
    s("index m", "read 0: the symbol `m` is not declared");
    s("inbounds(i9 in 0..4)", "read 0: i9 is no variable of this stage");
    s("index i0", "the body takes [F32], the reads are [I64]");
    s(
        "compute(r0) (v0: i64) { } -> v0",
        "read 0: computed from [0], but only 0 reads come before",
    );
    s(
        "index i0 compute(r0) (v0: f32) { } -> v0",
        "read 1: a function of [F32], given [I64]",
    );
    s(
        "index i0 compute(r0) (v0: i64) { } -> (v0, v0)",
        "read 1: a function with 2 results, expected one",
    );
    let read = "read o0[i0, i1]";
    let writes = |w: &str, message: &str| reject(&stage(read, &format!("{id} {w}")), &format!(", stage 0: {message}"));
    writes("", "0 writes for 1 results");
    writes("write o0[i0, i1]", "write 0: o0 is only read");
    writes("write o1[i0]", "write 0: a result of f32, but o1 is i64");
    writes("write o2[i0]", "write 0: 1 indices for o2 of rank 2");
    writes(
        "write o2[i0, 0]",
        "write 0: the map of o2 does not use i1: several points write one element",
    );
    writes(
        "write o2[r0, i1]",
        "write 0: r0 in the map of a write, which only a scatter may have",
    );
    let k = |stage: &str, message: &str| reject(&one(stage), &format!(", stage 0: {message}"));
    let sum = "combine init(f32 0.0) (v0: f32, v1: f32) { v2 = add v0 v1 } -> v2 merge (v0: f32, v1: f32) { v2 = add v0 v1 } -> v2";
    k(
        &format!("stage reduce(4) {{ {read} {id} {w} }}"),
        "reduction dimensions without a combiner",
    );
    k(
        &format!("stage {{ {read} {id} {sum} {w} }}"),
        "a combiner without reduction dimensions",
    );
    k(
        &format!("stage reduce(4) where (i2 in 0..3) {{ {read} {id} {sum} {w} }}"),
        "where: a reduction or a scatter of some points only",
    );
    k(
        &format!("stage where (i7 in 0..3) {{ {read} {id} {w} }}"),
        "where: i7 is no variable of this stage",
    );
    k(
        &format!("stage scan {{ {read} {id} {w} }}"),
        "a scan without reduction dimensions",
    );
    k(
        &format!("stage reduce(4) scan scatter {{ {read} {id} {sum} {w} }}"),
        "both a scan and a scatter",
    );
    k(
        &format!("stage reduce(4) {{ {read} {id} {sum} write o2[i0 + i2, i1] }}"),
        "write 0: the map of o2 uses i2, which is reduced",
    );
    k(
        &format!("stage parallel(4) {{ {read} {id} write l0[] }}"),
        "write 0: the map of l0 does not use i2: several points write one element",
    );
    let combiner = |c: &str, message: &str| k(&format!("stage reduce(4) {{ {read} {id} {c} {w} }}"), message);
    combiner(
        &sum.replace("init(f32 0.0)", "init()"),
        "0 initial values for 1 accumulators",
    );
    combiner(
        &sum.replace(
            "merge (v0: f32, v1: f32) { v2 = add v0 v1 } -> v2",
            "merge (v0: f32) { } -> v0",
        ),
        "merge takes [F32], expected [F32, F32]",
    );
    combiner(
        "combine init(f32 0.0) (v0: f32) { } -> v0 merge (v0: f32, v1: f32) { } -> v0",
        "combiner takes [F32], expected [F32, F32]",
    );
    let mut k: Kernel = NORMALIZE.parse().unwrap();
    first(&mut k).combine.as_mut().unwrap().init[0] = 1 << 40;
    assert_eq!(
        k.verify().unwrap_err(),
        "kernel @normalize, stage 0: the bits 0x10000000000 are no value of f32"
    );
    let mut k: Kernel = NORMALIZE.parse().unwrap();
    first(&mut k).body.outputs.clear();
    assert!(
        k.verify()
            .unwrap_err()
            .starts_with("kernel @normalize, stage 0: combiner takes")
    );
}

#[test]
fn bad_text_names_its_place() {
    let err = |s: &str| s.parse::<Kernel>().unwrap_err().to_string();
    assert_eq!(err("kernel @k(o1: f32[] in) outer() {}"), "1:11: found o1, expected o0");
    assert_eq!(
        err("kernel @k(o0: f32[] up) outer() {}"),
        "1:21: found `up`, expected `in`, `out` or `part`"
    );
    assert_eq!(err("kernel @k() {}"), "1:13: found `{`, expected `outer`");
    assert_eq!(
        err("kernel @k() outer() {\n  stage { peek }\n}"),
        "2:11: found `peek`, expected `read`, `index`, `inbounds`, `compute`, `check` or `body`"
    );
    assert_eq!(
        err("kernel @k() outer() { stage { read o0[] } }"),
        "1:36: o0 does not exist"
    );
    assert_eq!(
        err("kernel @k() outer() { stage { read x0[] } }"),
        "1:36: found `x0`, expected an operand or a local"
    );
    let fill = "kernel @k(o0: f32[] in) outer() { stage { read o0[] where () else i64 0 } }";
    assert_eq!(err(fill), "1:67: a fill value of i64, but o0 is f32");
}

#[test]
fn checks_report_the_first_index_that_names_no_element() {
    let text = "kernel @pick(o0: f32[5] in, o1: i64[20] in, o2: f32[20] out) outer(20) {
      stage {
        read o1[i0]
        compute(r0) (v0: i64) { v1 = const i64 0; v2 = max v0 v1; v3 = const i64 4; v4 = min v2 v3 } -> v4
        read o0[r1]
        check 3 (r0 in 0..5) where (i0 - 1 in 0..19)
        body (v0: i64, v1: i64, v2: f32) { } -> v2
        write o2[i0]
      }
    }";
    let indices = |bad: usize| Tensor::from_fn(DType::I64, &[20], |i| Number::Int(if i == bad { 5 } else { 3 }));
    // The guard leaves the first point out.
    for bad in [0, 20] {
        eval(text, &[], &[ramp(&[5]), indices(bad)]);
    }
    for bad in [1, 19] {
        let e = run(&parse(text), &|_| None, &[ramp(&[5]), indices(bad)]).unwrap_err();
        assert_eq!(e.check, Some(3));
        assert_eq!(
            e.to_string(),
            "@pick, check 3: an index in the model's data is out of range"
        );
    }
}

/// Doubles a row `n` times, and writes what it is each time.
const DOUBLE: &str = "kernel @double(o0: f32[12] in, o1: f32[n, 12] out, o2: f32[12] out) symbols(n) outer(12) {
  local l0: f32[]
  stage { read o0[i0] body (v0: f32) { } -> v0 write l0[] }
  loop(n) {
    stage { read l0[] body (v0: f32) { v1 = add v0 v0 } -> v1 write l0[] }
    stage { read l0[] body (v0: f32) { } -> v0 write o1[i1, i0] }
  }
  stage { read l0[] body (v0: f32) { } -> v0 write o2[i0] }
}";

#[test]
fn loops_hand_locals_on() {
    let x = ramp(&[12]);
    let found = eval(DOUBLE, &[("n", 3)], std::slice::from_ref(&x));
    let times = |n: f64| Tensor::from_fn(DType::F32, &[12], |i| Number::Float(x.get(i).f64() * n));
    let rows = Tensor::from_fn(DType::F32, &[3, 12], |i| {
        Number::Float(x.get(i % 12).f64() * [2.0, 4.0, 8.0][i / 12])
    });
    assert_eq!(found, [rows, times(8.0)]);
    let found = eval(DOUBLE, &[("n", 0)], std::slice::from_ref(&x));
    assert_eq!(
        found,
        [Tensor::from_fn(DType::F32, &[0, 12], |_| Number::Int(0)), times(1.0)]
    );
}

#[test]
fn nested_loops_count_by_themselves() {
    let text = "kernel @count(o0: i64[2, 3, 2] out) outer(2) {
        loop(3) { loop(2) { stage { index 100*i0 + 10*i1 + i2 body (v0: i64) { } -> v0 write o0[i0, i1, i2] } } } }";
    let want = Tensor::from_i64(&[2, 3, 2], &[0, 1, 10, 11, 20, 21, 100, 101, 110, 111, 120, 121]);
    assert_eq!(eval(text, &[], &[]), [want]);
}

#[test]
fn rejected_loops() {
    let rejected = |rest: &str, message: &str| {
        let text = format!("kernel @k(o0: f32[4] in, o1: f32[4] out) symbols(n) outer() {{ local l0: f32[4] {rest} }}");
        assert_eq!(parse(&text).verify().unwrap_err(), message);
    };
    let copy = "stage parallel(4) { read o0[i1] body (v0: f32) { } -> v0 write l0[i1] }";
    let show = "stage parallel(4) { read l0[i0] body (v0: f32) { } -> v0 write o1[i0] }";
    rejected(
        &format!("loop(n) {{ {copy} }} {show}"),
        "kernel @k, stage 1: read 0: l0 is not written by an earlier stage",
    );
    assert_eq!(
        parse(&format!(
            "kernel @k(o0: f32[4] in, o1: f32[4] out) outer() {{ local l0: f32[4] loop(2) {{ {copy} }} {show} }}"
        ))
        .verify(),
        Ok(())
    );
    rejected(
        &format!(
            "loop(2) {{ {copy} stage parallel(4) {{ read l0[3 - i1] body (v0: f32) {{ }} -> v0 write l0[i1] }} }} {show}"
        ),
        "kernel @k, stage 1: read 0: l0 is read where another point of the stage writes it",
    );
    rejected(&format!("loop(-1) {{ {copy} }}"), "kernel @k: stage 0: an extent of -1");
    rejected(
        &format!("loop(2) where (i1 in 0..3) {{ {copy} }} {show}"),
        "kernel @k, loop in front of stage 0: i1 is no variable around the loop",
    );
    // It may be left out.
    rejected(
        &format!("loop(2) where (i0 in 0..3) {{ {copy} }} {show}"),
        "kernel @k, stage 1: read 0: l0 is not written by an earlier stage",
    );
    let deep = format!("kernel @k(o0: f32[4] out) outer() {{ {}", "loop(2) { ".repeat(100));
    let e = deep.parse::<Kernel>().unwrap_err().to_string();
    assert!(e.contains("a loop inside 16 others"), "{e}");
}

#[test]
fn outer_points_do_not_meet_in_loops() {
    fails(
        "kernel @k(o0: f32[5] out) outer(4) {
           loop(2) { stage { index i1 body (v0: i64) { v1 = cast f32 v0 } -> v1 write o0[i0 + i1] } } }",
        &[],
        "@k, stage 0 at (1, 0): write 0: element 1 is written by two outer points",
    );
}
