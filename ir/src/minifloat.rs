//! Floats of at most 8 bits: what their codes mean, for all of them at once.
//!
//! A code is a sign, an exponent and a mantissa, as IEEE 754 has them, subnormal numbers included; formats differ in the widths,
//! the bias, and in which codes are no numbers. A format without a mantissa is a scale: a power of two for each code, without
//! sign and zero.
//!
//! Sources: OCP 8-bit Floating Point Specification 1.0; OCP Microscaling Formats Specification 1.0; ONNX, "Float stored in
//! 8 bits" (with the formats of one NaN by Noune et al., 2022, arXiv:2206.02915).

#[cfg(test)]
mod tests;

/// Which codes of a format are no finite numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Codes {
    /// The largest exponent: infinity, and NaN where the mantissa is not 0.
    Ieee,
    /// All bits but the sign set: NaN.
    Nan,
    /// The code of -0: NaN.
    NanForMinusZero,
    /// None.
    Finite,
}

/// A format of floats of at most 8 bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Minifloat {
    /// Bits of the exponent.
    pub exponent: u8,
    /// Bits of the mantissa.
    pub mantissa: u8,
    /// What is taken away from the exponent's code.
    pub bias: i16,
    /// What is no finite number.
    pub codes: Codes,
}

impl Minifloat {
    /// A format.
    pub const fn new(exponent: u8, mantissa: u8, bias: i16, codes: Codes) -> Minifloat {
        Minifloat {
            exponent,
            mantissa,
            bias,
            codes,
        }
    }

    /// False for scales.
    pub const fn is_signed(self) -> bool {
        self.mantissa > 0
    }

    /// Bits of a code without its sign.
    pub const fn magnitude_bits(self) -> u8 {
        self.exponent + self.mantissa
    }

    /// Bits of a code.
    pub const fn bits(self) -> u8 {
        self.magnitude_bits() + self.is_signed() as u8
    }

    /// The bit of a code that is the sign; 0 for scales.
    pub const fn sign(self) -> u8 {
        if self.is_signed() {
            1 << self.magnitude_bits()
        } else {
            0
        }
    }

    /// The code of the largest number.
    pub const fn largest(self) -> u8 {
        let all = ((1u16 << self.magnitude_bits()) - 1) as u8;
        match self.codes {
            Codes::Ieee => (all >> self.mantissa << self.mantissa) - 1,
            Codes::Nan => all - 1,
            Codes::NanForMinusZero | Codes::Finite => all,
        }
    }

    /// The code of a NaN; `None` where there is none.
    pub const fn nan(self) -> Option<u8> {
        let all = ((1u16 << self.magnitude_bits()) - 1) as u8;
        match self.codes {
            // The one that is quiet elsewhere too.
            Codes::Ieee => Some(self.overflow() | 1 << (self.mantissa - 1)),
            Codes::Nan => Some(all),
            Codes::NanForMinusZero => Some(self.sign()),
            Codes::Finite => None,
        }
    }

    /// The code of what is too large, but for its sign: infinity, where there is none NaN, where there is none either the
    /// largest number.
    pub const fn overflow(self) -> u8 {
        match self.codes {
            Codes::Ieee | Codes::Finite => self.largest() + (!matches!(self.codes, Codes::Finite)) as u8,
            Codes::Nan => self.largest() + 1,
            Codes::NanForMinusZero => self.sign(),
        }
    }

    /// The largest number.
    pub fn most(self) -> f32 {
        self.decode(self.largest())
    }

    /// The number of a code; bits above those of the format are not looked at.
    pub fn decode(self, code: u8) -> f32 {
        let negative = code & self.sign() != 0;
        let magnitude = code & ((1u16 << self.magnitude_bits()) - 1) as u8;
        let infinite = matches!(self.codes, Codes::Ieee) && magnitude >= self.overflow();
        let value = if infinite && magnitude == self.overflow() {
            f32::INFINITY
        } else if infinite
            || self.codes == Codes::Nan && Some(magnitude) == self.nan()
            || self.codes == Codes::NanForMinusZero && negative && magnitude == 0
        {
            f32::NAN
        } else {
            let exponent = i32::from(magnitude >> self.mantissa);
            let fraction = u16::from(magnitude) & ((1 << self.mantissa) - 1);
            let one = 1 << self.mantissa;
            let (digits, exponent) = match exponent {
                0 if self.is_signed() => (fraction, 1),
                e => (fraction + one, e),
            };
            let unit = exponent - i32::from(self.bias) - i32::from(self.mantissa);
            (f64::from(digits) * f64::from(unit).exp2()) as f32
        };
        if negative { -value } else { value }
    }

    /// The code of the nearest number, of two the even one. What would round to more than the largest number is
    /// [`Minifloat::overflow`], with its sign where that is none of the code; NaN is 0 where the format has none.
    ///
    /// For scales: the nearest power of two, of two the larger; NaN for everything below the smallest, and above the
    /// largest.
    pub fn encode(self, x: f32) -> u8 {
        let magnitude = f64::from(x.abs());
        let exponent = (magnitude.to_bits() >> 52) as i32 - 1023;
        if !self.is_signed() {
            let least = -i32::from(self.bias);
            let nan = self.nan().unwrap_or(0);
            if x.is_nan() || x < 0.0 || exponent < least {
                return nan;
            }
            let up = i32::from(magnitude >= 1.5 * f64::from(exponent).exp2());
            return u8::try_from(exponent + up - least).unwrap_or(nan);
        }
        let code = if x.is_nan() {
            self.nan().unwrap_or(0)
        } else if x.is_infinite() {
            self.overflow()
        } else {
            let least = 1 - i32::from(self.bias);
            let exponent = exponent.max(least);
            let unit = f64::from(exponent - i32::from(self.mantissa)).exp2();
            // The digits carry into the exponent.
            let code = ((exponent - least) << self.mantissa) + (magnitude / unit).round_ties_even() as i32;
            if code > i32::from(self.largest()) {
                self.overflow()
            } else {
                code as u8
            }
        };
        // Neither 0 nor NaN has a sign where that would be another code.
        let unsigned = self.codes == Codes::NanForMinusZero && code & !self.sign() == 0;
        if x.is_sign_negative() && !unsigned {
            code | self.sign()
        } else {
            code
        }
    }
}
