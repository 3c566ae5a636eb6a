use super::*;

fn plan() -> Plan<'static> {
    let buffer = |bytes, storage| Buffer { bytes, storage };
    Plan {
        name: "tiny".into(),
        entries: vec!["add".into()],
        buffers: vec![
            buffer(16, Storage::Input),
            buffer(16, Storage::Arena(64)),
            buffer(16, Storage::Output),
        ],
        arena_bytes: 128,
        steps: vec![
            Step::Launch(Launch {
                entry: 0,
                grid: [1, 1, 1],
                block: [32, 1, 1],
                buffers: vec![0, 1],
                dims: vec![4],
                node: "Add_0".into(),
                checks: vec![],
            }),
            Step::Copy { from: 1, to: 2 },
        ],
        inputs: vec![0],
        outputs: vec![2],
        ..Plan::default()
    }
}

#[test]
fn plans_are_checked() {
    plan().check().unwrap();
    let change = |f: &dyn Fn(&mut Plan)| {
        let mut p = plan();
        f(&mut p);
        p.check().unwrap_err().to_string()
    };
    let launch = |p: &mut Plan, f: &dyn Fn(&mut Launch)| match &mut p.steps[0] {
        Step::Launch(l) => f(l),
        s => panic!("{s:?}"),
    };
    for (message, part) in [
        (change(&|p| p.arena_bytes = 72), "16 bytes at 64 of an arena of 72"),
        (change(&|p| p.buffers[1].storage = Storage::Arena(8)), "16 bytes at 8"),
        (
            change(&|p| p.buffers[1].storage = Storage::Constant(vec![1, 2].into())),
            "2 constant ones",
        ),
        (change(&|p| p.buffers[2].bytes = 8), "copy from buffer 1 to buffer 2"),
        (change(&|p| p.inputs = vec![1]), "an input or output"),
        (change(&|p| p.outputs = vec![7]), "buffer 7 of 3"),
        (
            change(&|p| launch(p, &|l| l.entry = 1)),
            "`Add_0` launches what does not exist",
        ),
        (
            change(&|p| launch(p, &|l| l.block = [1024, 2, 1])),
            "blocks of [1024, 2, 1] threads",
        ),
        (
            change(&|p| launch(p, &|l| l.block = [0, 1, 1])),
            "blocks of [0, 1, 1] threads",
        ),
        (
            change(&|p| launch(p, &|l| l.grid = [1, 1 << 16, 1])),
            "a grid of [1, 65536, 1]",
        ),
    ] {
        assert!(message.contains(part) && message.contains("`tiny`"), "{message}");
    }
}

/// On a machine without a driver the error says so; with one, a device that does not exist is the error.
#[test]
fn without_a_device_there_is_an_error() {
    let e = Gpu::capability(u32::MAX).unwrap_err();
    let text = e.to_string();
    match e {
        Error::NoDriver => assert!(
            text.starts_with("no CUDA driver: libcuda.so.1 could not be loaded"),
            "{text}"
        ),
        Error::NoDevice { .. } => assert!(text.contains("no CUDA device 4294967295"), "{text}"),
        // A driver without any device refuses to start.
        Error::Driver { .. } => assert!(text.contains("starting the driver"), "{text}"),
        e => panic!("{e}"),
    }
}
