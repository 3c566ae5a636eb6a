use crate::DType;
use crate::index::Reg;
use crate::loops::{Ahead, Expr, Grain, Kernel, Stmt};

fn parse(body: &str) -> Kernel {
    let text = format!("loops @k(b0: f32[n] in, b1: f32[n] out, b2: i64[4] in) symbols(n) {{ {body} }}");
    text.parse().unwrap_or_else(|e| panic!("{e} in {text}"))
}

#[track_caller]
fn reject(body: &str, message: &str) {
    assert_eq!(
        parse(body).verify().unwrap_err(),
        format!("kernel @k{message}"),
        "{body}"
    );
}

#[track_caller]
fn accept(body: &str) {
    parse(body).verify().unwrap();
}

const C: &str = "r0: f32 = const f32 0.0";

#[test]
fn declarations() {
    reject(
        "buffer b3: f32[m] worker",
        ": buffer b3: the symbol `m` is not declared",
    );
    reject("buffer b3: f32[-1] worker", ": buffer b3 has the length -1");
    reject(
        "buffer b3: f32[n] shared",
        ": shared buffer b3 has the length n, expected a constant",
    );
    reject(
        "buffer b3: f32[n] private",
        ": private buffer b3 has the length n, expected a constant",
    );
    reject("reg r0: f32x65", ": register r0 has 65 lanes, expected 1 to 64");
    let mut k = parse("buffer b3: f32[4] worker");
    k.buffers.swap(2, 3);
    assert_eq!(
        k.verify().unwrap_err(),
        "kernel @k: parameter b3 comes after a buffer that is none"
    );
    reject(
        "buffer b3: f32[4] worker buffer b4: f32[4] shared",
        ": parallel loops and worker memory do not go with block and thread loops, shared memory and barriers",
    );
}

#[test]
fn registers_are_assigned_before_they_are_read() {
    let unassigned = ": register r0 is read before it is assigned on every path";
    reject("reg r0: f32 store b1[0] = r0", &format!(", statement 0{unassigned}"));
    reject(
        &format!("for i0 serial 0..n {{ {C} }} store b1[0] = r0"),
        &format!(", statement 1{unassigned}"),
    );
    accept(&format!("for i0 serial 0..3 {{ {C} }} store b1[0] = r0"));
    reject(
        &format!("if (0 in 0..n) {{ {C} }} store b1[0] = r0"),
        &format!(", statement 1{unassigned}"),
    );
    reject(
        &format!("for i0 vector 0..4 {{ {C} }} store b1[0] = r0"),
        &format!(", statement 1{unassigned}"),
    );
    for kind in ["parallel", "block.x", "thread.x"] {
        let body = format!("{C} for i0 {kind} 0..4 {{ r1: f32 = copy r0 {C} }}");
        reject(&body, &format!(", statement 1.0{unassigned}"));
        accept(&format!("{C} for i0 {kind} 0..4 {{ store b1[i0] = r0 }}"));
    }
    let mut k = parse(C);
    k.body.push(Stmt::Set(Reg(7), Expr::Const(0)));
    assert_eq!(
        k.verify().unwrap_err(),
        "kernel @k, statement 1: register r7 does not exist"
    );
}

#[test]
fn types() {
    reject("r0: i64 = load b0[0]", ", statement 0: r0 is i64, but is assigned f32");
    reject(
        &format!("{C} r1: i64 = copy r0"),
        ", statement 1: r1 is i64, but is assigned f32",
    );
    reject("r0: i32 = index 3", ", statement 0: r0 is i32, but is assigned i64");
    reject(
        "r0: f32 = inbounds(3 in 0..n)",
        ", statement 0: r0 is f32, but is assigned bool",
    );
    reject(
        "r0: i64 = const i64 0 store b1[0] = r0",
        ", statement 1: r0 is i64, but b1 is f32",
    );
    reject(
        &format!("{C} r1: i64 = const i64 1 r2: f32 = add r0 r1"),
        ", statement 2: `add` of (f32, i64), expected equal dtypes",
    );
    reject(
        &format!("{C} r1: f32 = load b0[r0]"),
        ", statement 1: r0 is f32, expected i64 in an index",
    );
    for (bits, found) in [(2, "bool"), (256, "u8")] {
        let mut k = parse(&format!("r0: {found} = const {found}:0x1"));
        k.body = vec![Stmt::Set(Reg(0), Expr::Const(bits))];
        assert_eq!(
            k.verify().unwrap_err(),
            format!("kernel @k, statement 0: the bits {bits:#x} are no value of {found}")
        );
    }
    let mut k = parse(&format!("{C} r1: f32 = neg r0"));
    if let Stmt::Set(_, Expr::Prim(_, args)) = &mut k.body[1] {
        args[2] = Reg(1);
    }
    assert_eq!(
        k.verify().unwrap_err(),
        "kernel @k, statement 1: unused operands of `neg` must repeat the first"
    );
}

#[test]
fn buffers_and_indices() {
    reject(
        &format!("{C} store b0[0] = r0"),
        ", statement 1: a store to b0, which is only read",
    );
    reject("r0: f32 = load b9[0]", ", statement 0: buffer b9 does not exist");
    reject("r0: f32 = load b0[i0]", ", statement 0: i0 is no variable here");
    reject("r0: f32 = load b0[m]", ", statement 0: the symbol `m` is not declared");
    reject(
        "r0: i64 = index div(n, 0)",
        ", statement 0: a division by 0 in an index",
    );
    reject(
        "r0: bool = inbounds(0 in 0..m)",
        ", statement 0: the symbol `m` is not declared",
    );
    reject(
        "for i0 serial 0..2 { for i0 serial 0..2 { } }",
        ", statement 0.0: variable i0 is already in use",
    );
    accept("for i0 serial 0..2 { } for i0 serial 0..2 { }");
}

#[test]
fn lanes() {
    let lanes = "r0: f32x4 = const f32 0.0";
    reject(
        &format!("for i0 vector 0..8 {{ {lanes} }}"),
        ", statement 0.0: r0 has 4 lanes in a vector loop of 8",
    );
    reject(
        &format!("{lanes} r1: f32 = copy r0"),
        ", statement 1: r0 has 4 lanes, expected 1 or 1",
    );
    reject(
        &format!("{lanes} r1: f32x8 = copy r0"),
        ", statement 1: r0 has 4 lanes, expected 8 or 1",
    );
    reject(
        &format!("{lanes} store b1[0] = r0"),
        ", statement 1: r0 has 4 lanes, expected 1 or 1",
    );
    reject(
        &format!("{lanes} r1: f32 = lane r0 4"),
        ", statement 1: lane 4 of r0, which has 4 lanes",
    );
    reject(
        &format!("{C} r1: f32 = lane r0 0"),
        ", statement 1: lane 0 of r0, which has 1 lanes",
    );
    accept(&format!(
        "{lanes} for i0 vector 0..4 {{ r0: f32x4 = neg r0 }} r1: f32 = lane r0 3"
    ));
}

#[test]
fn loops() {
    reject(
        "for i0 vector 0..n { }",
        ", statement 0: the extent of a loop of kind vector is n, expected a constant",
    );
    reject(
        "for i0 vector 0..65 { }",
        ", statement 0: a vector loop of 65 lanes, expected 1 to 64",
    );
    reject(
        "for i0 unrolled 0..n { }",
        ", statement 0: the extent of a loop of kind unrolled is n, expected a constant",
    );
    reject(
        "for i0 thread.x 0..n { }",
        ", statement 0: the extent of a loop of kind thread.x is n, expected a constant",
    );
    for inner in ["for i1 serial 0..2 { }", "if (i0 in 0..1) { }", "barrier"] {
        reject(
            &format!("for i0 vector 0..4 {{ {inner} }}"),
            ", statement 0.0: a vector loop contains only assignments, stores and checks",
        );
    }
    let last =
        ": a parallel loop that is neither the kernel's last top-level statement nor inside of serial loops alone";
    reject(
        "for i0 parallel 0..4 { } r0: i64 = index 0",
        &format!(", statement 0{last}"),
    );
    reject(
        "for i0 parallel 0..4 { for i1 parallel 0..4 { } }",
        &format!(", statement 0.0{last}"),
    );
    reject(
        "if (0 in 0..n) { for i0 parallel 0..4 { } }",
        &format!(", statement 0.0{last}"),
    );
    reject(
        "for i0 serial 0..2 { for i1 parallel 0..4 { for i2 parallel 0..4 { } } }",
        &format!(", statement 0.0.0{last}"),
    );
    reject(
        "for i0 vector 0..4 { for i1 parallel 0..4 { } }",
        ", statement 0.0: a vector loop contains only assignments, stores and checks",
    );
    accept(&format!(
        "for i0 serial 0..2 {{ {C} store b1[i0] = r0 for i1 parallel 0..4 {{ }} if (i0 in 0..n) {{ for i2 parallel 0..n {{ }} }} }}"
    ));
    accept("buffer b3: f32[4] kernel for i0 serial 0..2 { for i1 parallel 0..4 { r0: f32 = load b3[i1] } }");
    accept("buffer b3: f32[4] worker for i0 serial 0..2 { for i1 parallel 0..4 { r0: f32 = load b3[i1] } }");
    accept("for i0 serial 0..2 { for i1 parallel(100 from 10, turned by i0) 0..4 { } }");
    reject(
        "for i0 serial 0..2 { for i1 parallel(100 from 10, turned by i1) 0..4 { } }",
        ", statement 0.0: a parallel loop that is turned by no variable here",
    );
    reject(
        "buffer b3: f32[4] kernel for i0 parallel 0..4 { r0: f32 = load b3[i0] }",
        ": kernel buffer b3, but no parallel loop stands inside of a serial one",
    );
    reject(
        "buffer b3: f32[4] private for i0 serial 0..2 { for i1 parallel 0..4 { } }",
        ": private buffer b3 in a kernel with parallel loops inside of serial ones",
    );
    reject(
        "buffer b3: f32[4] worker for i0 serial 0..2 { r0: f32 = load b3[i0] for i1 parallel 0..4 { } }",
        ", statement 0.0: b3 is worker memory, outside of the kernel's parallel loops",
    );
    reject(
        &format!("{C} for i0 serial 0..2 {{ for i1 parallel 0..4 {{ store b1[i1] = r0 }} }}"),
        ", statement 1.0.0: register r0 is read before it is assigned on every path",
    );
    reject(
        &format!("for i0 serial 0..2 {{ for i1 parallel 0..4 {{ {C} }} store b1[i0] = r0 }}"),
        ", statement 0.1: register r0 is read before it is assigned on every path",
    );
    reject(
        "r0: i64 = index 3 for i0 parallel 0..r0 { }",
        ", statement 1: the extent of a parallel loop is r0, expected symbols and constants only",
    );
    for (what, text) in [
        ("a store", "store b1[0] = r0"),
        ("a loop", "for i1 serial 0..2 { }"),
        ("a branch", "if (0 in 0..1) { }"),
    ] {
        reject(
            &format!("{C} {text} for i0 parallel 0..4 {{ }}"),
            &format!(", statement 1: {what} outside of the kernel's parallel loop, where only assignments stand"),
        );
    }
}

#[test]
fn gpu() {
    let mixed = ": parallel loops and worker memory do not go with block and thread loops, shared memory and barriers";
    reject(
        "for i0 parallel 0..4 { for i1 thread.x 0..4 { } }",
        &format!(", statement 0.0{mixed}"),
    );
    reject("for i0 parallel 0..4 { barrier }", &format!(", statement 0.0{mixed}"));
    reject(
        "for i0 thread.x 0..4 { } for i0 thread.x 0..8 { }",
        ", statement 1: thread.x loops of the extents 4 and 8",
    );
    reject(
        "for i0 block.x 0..4 { for i1 block.x 0..4 { } }",
        ", statement 0.0: a block.x loop inside another",
    );
    reject(
        "for i0 serial 0..4 { for i1 block.x 0..i0 { } }",
        ", statement 0.0: the extent of a block.x loop is i0, expected symbols and constants only",
    );
    reject(
        "for i0 thread.x 0..64 { for i1 thread.y 0..32 { } }",
        ", statement 0.0: 2048 threads in a block, expected at most 1024",
    );
    let mut k = parse("for i0 block.x 0..4 { }");
    if let Stmt::For { kind, .. } = &mut k.body[0] {
        *kind = crate::loops::LoopKind::Block(3);
    }
    assert_eq!(
        k.verify().unwrap_err(),
        "kernel @k, statement 0: GPU dimension 3, expected 0 to 2"
    );
}

#[test]
fn tiles() {
    let tile = |c: &str, a: &str, rest: &str| {
        format!("tile {c}[0; row 32] = {a}[0; row 4, k 1] * b0[0] sum(1 by 0, 1 by 0, 4) {rest}")
    };
    accept(&tile("b1", "b0", "rows 4 max 4 cols 32"));
    reject(
        &tile("b0", "b0", "rows 4 max 4 cols 32"),
        ", statement 0: a tile writes b0, which is only read",
    );
    reject(
        &tile("b1", "b1", "rows 4 max 4 cols 32"),
        ", statement 0: a tile reads its result b1",
    );
    reject(
        &tile("b1", "b2", "rows 4 max 4 cols 32"),
        ", statement 0: left operand b2 of a tile is i64, expected f32",
    );
    reject(
        &tile("b1", "b0", "rows 5 max 4 cols 32"),
        ", statement 0: a tile of 5 rows, expected at most 4",
    );
    reject(
        &tile("b1", "b0", "rows 4 max 4 cols 33"),
        ", statement 0: a tile of 33 columns, expected at most 32",
    );
    reject(
        &tile("b1", "b0", "rows i0 max 4 cols 32"),
        ", statement 0: i0 is no variable here",
    );
}

#[test]
fn bad_text_names_its_place() {
    let err = |s: &str| s.parse::<Kernel>().unwrap_err().to_string();
    assert_eq!(
        err("loops k() {}"),
        "1:7: found `k`, expected a name that starts with `@`"
    );
    assert_eq!(err("loops @k(b1: f32[1] in) {}"), "1:10: found b1, expected b0");
    assert_eq!(
        err("loops @k(b0: f32[1] worker) {}"),
        "1:21: found `worker`, expected `in` or `out`"
    );
    assert_eq!(
        err("loops @k() {\n  buffer b0: f32[1] in\n}"),
        "2:21: found `in`, expected `worker`, `kernel`, `shared` or `private`"
    );
    assert_eq!(
        err("loops @k() {\n  r0: f32 = foo r0\n}"),
        "2:13: `foo` is no expression"
    );
    assert_eq!(
        err("loops @k() { r0: f32 = const f64 1.0 }"),
        "1:30: a constant of f64, expected f32"
    );
    assert_eq!(
        err("loops @k() { r0: f33 = const f64 1.0 }"),
        "1:18: found `f33`, expected a type such as f32 or f32x8"
    );
    assert_eq!(
        err("loops @k() { reg r0: f32 r0: i64 = index 0 }"),
        "1:30: r0 is i64 here, but f32 before"
    );
    assert_eq!(
        err("loops @k() { store b0[0] = r1 "),
        "1:31: found the end of the text, expected a statement or `}`"
    );
    assert_eq!(
        err("loops @k() { r1: i64 = index 0 }"),
        "1:33: kernel @k has no type for r0: nothing assigns or declares it"
    );
    assert_eq!(
        err("loops @k() { for i0 twisted 0..3 {} }"),
        "1:21: `twisted` is no kind of loop"
    );
    assert_eq!(err("loops @k() {} x"), "1:15: found `x`, expected the end of the text");
    assert!(
        format!("loops @k() {{ {}", "for i0 serial 0..2 { ".repeat(10_000))
            .parse::<Kernel>()
            .is_err()
    );
}

#[test]
fn every_construct_reads_back() {
    use crate::Dim;
    use crate::TileKind;
    use crate::index::{Bound, Ix, Var};
    use crate::loops::{Buf, Buffer, LoopKind, Minima, RegInfo, Scales, Scope, Tile};
    use crate::scalar::Prim;
    let symbols = ["n", "seq len", "i0", "r7", "min"];
    let i = Ix::var(Var(0));
    let odd = symbols
        .iter()
        .fold(Ix::constant(-3), |e, s| &e + &i.scale(&Dim::sym(s)));
    let odd = &(&odd + &Dim::sym("i0")) + &Ix::reg(Reg(1)).div(&Dim::sym("r7"));
    let bound = |index: Ix| Bound {
        index,
        extent: Dim::sym("seq len"),
    };
    let mut regs = vec![
        RegInfo {
            dtype: DType::BF16,
            lanes: 1,
        },
        RegInfo {
            dtype: DType::I64,
            lanes: 16,
        },
    ];
    let mut body = vec![
        Stmt::Set(Reg(1), Expr::Index(odd.modulo(&Dim::Const(5)).at_most(&Dim::sym("n")))),
        Stmt::If {
            bounds: vec![],
            then: vec![Stmt::Barrier],
        },
        Stmt::If {
            bounds: vec![bound(odd.clone()), bound(i.clone())],
            then: vec![],
        },
        Stmt::Store {
            buffer: Buf(9),
            index: odd.clone(),
            value: Reg(1),
        },
    ];
    let mut set = |info: RegInfo, e: Expr, body: &mut Vec<Stmt>| {
        regs.push(info);
        body.push(Stmt::Set(Reg(regs.len() as u32 - 1), e));
    };
    for dtype in DType::ALL {
        let info = |lanes| RegInfo { dtype, lanes };
        let ones = if dtype == DType::Bool {
            1
        } else {
            u64::MAX >> (64 - dtype.bits())
        };
        set(info(1), Expr::Const(ones), &mut body);
        set(info(8), Expr::Copy(Reg(0)), &mut body);
        set(info(1), Expr::Lane(Reg(1), 15), &mut body);
        for (guard, fill) in [(vec![], 0), (vec![], 1), (vec![bound(odd.clone())], ones)] {
            set(
                info(3),
                Expr::Load {
                    buffer: Buf(0),
                    index: odd.clone(),
                    guard,
                    fill,
                },
                &mut body,
            );
        }
    }
    for p in Prim::all() {
        let mut args = [Reg(3), Reg(1), Reg(40)];
        let first = args[0];
        args[p.arity()..].fill(first);
        set(
            RegInfo {
                dtype: p.target().unwrap_or(DType::F32),
                lanes: 1,
            },
            Expr::Prim(p, args),
            &mut body,
        );
    }
    set(
        RegInfo {
            dtype: DType::Bool,
            lanes: 1,
        },
        Expr::InBounds(vec![bound(odd.clone()), bound(i.clone())]),
        &mut body,
    );
    for (kind, accumulate) in TileKind::ALL.into_iter().zip([true, false].into_iter().cycle()) {
        body.push(Stmt::Tile(Box::new(Tile {
            kind,
            a: Buf(0),
            a_index: odd.clone(),
            a_row: i.clone(),
            a_k: Ix::constant(Dim::sym("n")),
            blocks: [(i.clone(), Ix::constant(3)), (Ix::constant(1), odd.clone())],
            k: Ix::constant(-1),
            b: Buf(1),
            b_index: i.scale(&Dim::Const(-2)),
            c: Buf(2),
            c_index: Ix::constant(0),
            c_row: odd.clone(),
            rows: i.at_most(&Dim::Const(6)),
            max_rows: 6,
            cols: Ix::constant(32),
            accumulate,
            ahead: (!accumulate).then(|| Ahead {
                turn: i.clone(),
                of: Ix::constant(4),
            }),
            scales: kind.has_scales().then(|| {
                Box::new(Scales {
                    a: Buf(0),
                    offset: Buf(1),
                    a_index: odd.clone(),
                    a_block: i.clone(),
                    b: Buf(1),
                    b_index: i.scale(&Dim::Const(3)),
                    minima: accumulate.then_some(Minima {
                        b: Buf(0),
                        total: Buf(1),
                    }),
                })
            }),
        })));
    }
    let gpu = (0..3).flat_map(|d| [LoopKind::Block(d), LoopKind::Thread(d)]);
    let kinds = [
        LoopKind::Serial,
        LoopKind::Parallel(Grain::ALWAYS),
        LoopKind::Parallel(Grain {
            work: &Dim::sym("seq len") * 3,
            least: 1 << 40,
            turn: Some(Var(7)),
        }),
        LoopKind::Vector,
        LoopKind::Unrolled,
    ];
    for (v, kind) in (0..).zip(kinds.into_iter().chain(gpu)) {
        body = vec![Stmt::For {
            var: Var(v),
            kind,
            extent: odd.clone(),
            body,
        }];
    }
    let scopes = [
        Scope::In,
        Scope::Out,
        Scope::Worker,
        Scope::Kernel,
        Scope::Shared,
        Scope::Private,
    ];
    let buffer = |scope| Buffer {
        dtype: DType::U8,
        len: &Dim::sym("seq len") * 2,
        scope,
    };
    let k = Kernel {
        name: "a \"b\"\n{".into(),
        symbols: symbols.map(Into::into).to_vec(),
        buffers: scopes.map(buffer).to_vec(),
        regs,
        pooled: true,
        body,
    };
    let text = k.to_string();
    assert_eq!(
        text.parse::<Kernel>().unwrap_or_else(|e| panic!("{e} in\n{text}")),
        k,
        "{text}"
    );
}
