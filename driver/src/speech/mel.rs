//! Log-mel spectrograms, as `WhisperFeatureExtractor` of transformers makes them:
//!
//! ```text
//! power[f, t] = |FFT(hann · samples around t · hop)|²            mirrored beyond both ends; the last frame is left out
//! mel[m, t]   = Σ_f filter[m, f] · power[f, t]                   triangles of area 1 on Slaney's scale
//! log         = max(log10(max(mel, 1e-10)), largest of all - 8)
//! features    = (log + 4) / 4
//! ```

use crate::generate::files::Files;
use crate::{Error, Result};
use rustfft::FftPlanner;
use rustfft::num_complex::Complex;
use serde_json::Value as Json;

/// The file that says how features are made.
const SETTINGS: &str = "preprocessor_config.json";

/// Where transformers 5 keeps the same beside settings of the tokenizer.
const PROCESSOR: &str = "processor_config.json";

/// The highest frequency of a filter.
const HIGHEST: f64 = 8000.0;

/// How features are made.
#[derive(Clone, Debug, PartialEq)]
pub struct Extractor {
    /// Samples a second.
    pub rate: usize,
    /// Bins of a frame.
    pub mels: usize,
    /// Samples from a frame to the next.
    pub hop: usize,
    /// Samples of a frame.
    pub fft: usize,
    /// Seconds of a window.
    pub seconds: usize,
    /// What short sounds are continued with.
    pub silence: f32,
}

impl Default for Extractor {
    /// Whisper's first models.
    fn default() -> Extractor {
        Extractor {
            rate: 16_000,
            mels: 80,
            hop: 160,
            fft: 400,
            seconds: 30,
            silence: 0.0,
        }
    }
}

/// A spectrogram.
#[derive(Clone, Debug, PartialEq)]
pub struct Features {
    /// `[mels, frames]`.
    pub values: Vec<f32>,
    /// Bins of a frame.
    pub mels: usize,
    /// Frames.
    pub frames: usize,
}

impl Features {
    /// Frames from `start` on, so many, which are 0 behind the end: `[mels, frames]`.
    pub fn window(&self, start: usize, frames: usize) -> Vec<f32> {
        let from = start.min(self.frames);
        let n = frames.min(self.frames - from);
        let mut window = vec![0.0; self.mels * frames];
        for (to, row) in window
            .chunks_exact_mut(frames)
            .zip(self.values.chunks_exact(self.frames))
        {
            to[..n].copy_from_slice(&row[from..from + n]);
        }
        window
    }
}

impl Extractor {
    /// What a model's files say; Whisper's own where they say nothing.
    ///
    /// # Errors
    /// When a field is no number above 0, or asks for what is not done here.
    pub fn of(files: &Files) -> Result<Extractor> {
        let parsed = |name: &str| match files.get(name) {
            Some(text) => serde_json::from_str(text).map_err(|e| files.wrong(name, e)),
            None => Ok(Json::Null),
        };
        let (mut name, mut json) = (SETTINGS, parsed(SETTINGS)?);
        if json.is_null() {
            (name, json) = (PROCESSOR, parsed(PROCESSOR)?["feature_extractor"].take());
        }
        let size = |field: &str, default: usize| match &json[field] {
            Json::Null => Ok(default),
            n => match n.as_u64() {
                Some(n) if (1..1 << 24).contains(&n) => Ok(n as usize),
                _ => Err(files.wrong(name, format!("{field} is {n}, expected a number above 0"))),
            },
        };
        if json["dither"].as_f64().is_some_and(|d| d != 0.0) || json["do_normalize"] == true {
            return Err(files.wrong(name, "dither and do_normalize are not supported"));
        }
        let d = Extractor::default();
        Ok(Extractor {
            rate: size("sampling_rate", d.rate)?,
            mels: size("feature_size", d.mels)?,
            hop: size("hop_length", d.hop)?,
            fft: size("n_fft", d.fft)?,
            seconds: size("chunk_length", d.seconds)?,
            silence: json["padding_value"].as_f64().unwrap_or(0.0) as f32,
        })
    }

    /// Frames of a window.
    pub fn frames(&self) -> usize {
        self.seconds * self.rate / self.hop
    }

    /// The features of a sound; one that is shorter than a window is continued with silence.
    ///
    /// # Errors
    /// When a window is shorter than half a frame.
    pub fn features(&self, sound: &[f32]) -> Result<Features> {
        let mut samples = sound.to_vec();
        samples.resize(sound.len().max(self.seconds * self.rate), self.silence);
        let half = self.fft / 2;
        if samples.len() <= half {
            let message = format!("a sound of {} samples in frames of {}", samples.len(), self.fft);
            return Err(Error::Option(message));
        }
        let (n, frames) = (samples.len() as i64, samples.len() / self.hop);
        // Beyond both ends the sound goes on as in a mirror.
        let at = |i: i64| {
            samples[if i < 0 {
                -i
            } else if i >= n {
                2 * (n - 1) - i
            } else {
                i
            } as usize]
        };
        let hann: Vec<f64> = (0..self.fft)
            .map(|i| 0.5 - 0.5 * (std::f64::consts::TAU * i as f64 / self.fft as f64).cos())
            .collect();
        let fft = FftPlanner::new().plan_fft_forward(self.fft);
        let (bins, filters) = (half + 1, self.filters());
        let mut values = vec![0f32; self.mels * frames];
        let mut row = vec![Complex::default(); self.fft];
        for t in 0..frames {
            let first = (t * self.hop) as i64 - half as i64;
            for (i, (x, w)) in row.iter_mut().zip(&hann).enumerate() {
                *x = Complex::new(f64::from(at(first + i as i64)) * w, 0.0);
            }
            fft.process(&mut row);
            let power: Vec<f64> = row[..bins].iter().map(Complex::norm_sqr).collect();
            for (m, filter) in filters.chunks_exact(bins).enumerate() {
                let mel: f64 = filter.iter().zip(&power).map(|(f, p)| f * p).sum();
                values[m * frames + t] = mel.max(1e-10).log10() as f32;
            }
        }
        let floor = values.iter().copied().fold(f32::NEG_INFINITY, f32::max) - 8.0;
        values.iter_mut().for_each(|x| *x = (x.max(floor) + 4.0) / 4.0);
        Ok(Features {
            values,
            mels: self.mels,
            frames,
        })
    }

    /// Triangles over the frequencies of an FFT, `[mels, fft / 2 + 1]`: each from its left neighbour's top to its right one's.
    fn filters(&self) -> Vec<f64> {
        let last = to_mel(HIGHEST);
        let tops: Vec<f64> = (0..self.mels + 2)
            .map(|i| to_hertz(last * i as f64 / (self.mels + 1) as f64))
            .collect();
        let bins = self.fft / 2 + 1;
        let frequency = |bin: usize| (self.rate / 2) as f64 * bin as f64 / (bins - 1) as f64;
        let triangle = |m: usize| {
            let (left, top, right) = (tops[m], tops[m + 1], tops[m + 2]);
            (0..bins).map(move |bin| {
                let f = frequency(bin);
                let height = ((f - left) / (top - left)).min((right - f) / (right - top)).max(0.0);
                height * 2.0 / (right - left)
            })
        };
        (0..self.mels).flat_map(triangle).collect()
    }
}

/// Slaney's scale: linear below 1,000 Hz, 27 steps for a factor of 6.4 above.
fn to_mel(hertz: f64) -> f64 {
    match hertz < 1000.0 {
        true => 3.0 * hertz / 200.0,
        false => 15.0 + (hertz / 1000.0).ln() * 27.0 / 6.4f64.ln(),
    }
}

fn to_hertz(mel: f64) -> f64 {
    match mel < 15.0 {
        true => 200.0 * mel / 3.0,
        false => 1000.0 * ((mel - 15.0) * 6.4f64.ln() / 27.0).exp(),
    }
}
