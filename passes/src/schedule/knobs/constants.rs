//! Where the float constants of vector loops stand.

use super::Knob;
use brolga_ir::DType;
use brolga_ir::loops::{Expr, Kernel, Stmt, visit};

/// Vector registers that are no constants'.
const BUSY_REGISTERS: i64 = 8;

/// The most float constants of vector loops that stand in registers; with more, all of them stand in memory.
pub const CONSTANTS: Knob = Knob {
    name: "constants",
    default: |target, _| i64::from(target.vector_registers) - BUSY_REGISTERS,
    tries: &[0, i64::MAX],
    apply: |k, most| k.pooled = constants(k) as i64 > most,
};

/// How many float constants vector loops have.
fn constants(k: &Kernel) -> usize {
    let mut found: Vec<u64> = vec![];
    visit(&k.body, &mut |s, lanes| {
        let Stmt::Set(r, Expr::Const(bits)) = s else { return };
        // Bits of 64 that hold the constant on every lane: two f32 that are an f64 share a vector.
        let all = match k.reg(*r).dtype {
            DType::F32 => bits & 0xffff_ffff | bits << 32,
            DType::F64 => *bits,
            _ => return,
        };
        if lanes > 0 && !found.contains(&all) {
            found.push(all);
        }
    });
    found.len()
}

#[cfg(test)]
mod tests {
    use super::super::tests::settled;

    #[test]
    fn many_constants_stand_in_memory() {
        let body = "for i0 vector 0..8 { r0: f32 = const f32 1.0 r1: f32 = const f32 2.0 r2: f32 = const f32 2.0 }";
        assert!(settled(body, "constants", 1).contains(") symbols(n) pooled {"));
        assert!(!settled(body, "constants", 2).contains("pooled"));
    }
}
