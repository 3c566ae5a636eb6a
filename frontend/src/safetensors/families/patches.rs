//! Images as sequences: patches by one convolution, with a token of the model's own before them, and learned positions.

use crate::safetensors::config::Config;
use crate::safetensors::error::Fail;
use crate::safetensors::net::{Net, One};
use brolga_ir::{Attr, Build, DType, Dim};

/// Images that are cut into patches.
pub struct Patches {
    size: [usize; 2],
    patch: [usize; 2],
    channels: usize,
    hidden: usize,
}

/// Names of what the sequence is made of.
pub struct Names {
    /// The convolution's weight.
    pub weight: String,
    /// Its bias, where it has one.
    pub bias: Option<String>,
    /// The token before the patches, and its shape.
    pub token: (String, Vec<usize>),
    /// The table of positions, which may have a leading extent of 1.
    pub positions: (String, bool),
}

impl Patches {
    /// What a configuration says.
    ///
    /// # Errors
    /// When a field is missing or wrong.
    pub fn of(config: &Config) -> Result<Patches, Fail> {
        let pair = |field: &str| -> Result<[usize; 2], Fail> {
            if config.get(field).is_none_or(serde_json::Value::is_number) {
                return Ok([config.size(field)?; 2]);
            }
            let list = config.floats(field)?.unwrap_or_default();
            match list[..] {
                [h, w] if h >= 1.0 && w >= 1.0 => Ok([h as usize, w as usize]),
                _ => Err(config.wrong(field, format_args!("{list:?}, expected a number or two"))),
            }
        };
        Ok(Patches {
            size: pair("image_size")?,
            patch: pair("patch_size")?,
            channels: config.opt_size("num_channels")?.unwrap_or(3),
            hidden: config.size("hidden_size")?,
        })
    }

    /// The input `pixel_values` `[batch, channels, height, width]` as `[batch, 1 + patches, hidden]`.
    ///
    /// # Errors
    /// When a patch is larger than the image.
    pub fn sequence(&self, net: &mut Net, names: &Names) -> One {
        let [h, w] = self.size;
        let [ph, pw] = self.patch;
        let (batch, hidden) = (Dim::sym("batch"), Dim::from(self.hidden));
        let image = net.input(
            "pixel_values",
            DType::F32,
            &[batch.clone(), self.channels.into(), h.into(), w.into()],
        );
        net.enter(names.weight.trim_end_matches(".weight"));
        let weight = net.vector(&names.weight, &[self.hidden, self.channels, ph, pw])?;
        let f32 = || Attr::DType(DType::F32);
        let none = || Attr::Dims(vec![Dim::ZERO; 2]);
        let attrs = [
            Attr::Ints(vec![ph as i64, pw as i64]),
            Attr::Ints(vec![1, 1]),
            none(),
            none(),
            Attr::Int(1),
            f32(),
            f32(),
        ];
        let x = net.call("conv", &attrs, &[image, weight])?;
        let patches = (h / ph) * (w / pw);
        let x = net.reshaped(x, &[batch.clone(), hidden.clone(), patches.into()])?;
        let mut x = net.call("transpose", &[Attr::axes(&[0, 2, 1])], &[x])?;
        if let Some(bias) = &names.bias {
            x = net.add_vector(x, bias, self.hidden)?;
        }
        let token = net.vector(&names.token.0, &names.token.1)?;
        let token = net.reshaped(token, &[Dim::ONE, Dim::ONE, hidden.clone()])?;
        let token = net.spread(token, &[batch, Dim::ONE, hidden])?;
        let x = net.call("concat", &[Attr::Int(1)], &[token, x])?;
        let table = [1, patches + 1, self.hidden];
        let positions = net.vector(&names.positions.0, if names.positions.1 { &table } else { &table[1..] })?;
        net.map("add", &[x, positions])
    }
}
