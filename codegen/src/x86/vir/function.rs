//! Functions: the code, its registers, its constants; how one is written, and what makes one well formed.

use super::{
    Base, Binary, Class, Comparison, Cond, Elem, G, GeneralOp, K, Label, Logic, Mem, Op, Operand, Scalar, Slot, Type,
    Unary, V,
};
use crate::x86::{Error, Isa};
use rustc_hash::FxHashMap;

/// Constants behind the code.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    bytes: Vec<u8>,
    places: FxHashMap<Vec<u8>, i32>,
    align: usize,
}

impl Pool {
    /// The place of these bytes, whose number is a power of two; they are aligned to it, up to a line of cache.
    pub fn place(&mut self, bytes: &[u8]) -> i32 {
        if let Some(at) = self.places.get(bytes) {
            return *at;
        }
        let align = bytes.len().min(64);
        let at = self.bytes.len().next_multiple_of(align);
        self.bytes.resize(at, 0);
        self.bytes.extend_from_slice(bytes);
        self.align = self.align.max(align);
        self.places.insert(bytes.to_vec(), at as i32);
        at as i32
    }

    /// Everything in it.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What its place must be a multiple of.
    pub fn align(&self) -> usize {
        self.align.max(1)
    }
}

/// A function in the vector IR, and the way to write one: ask for registers and labels, then push operations.
#[derive(Clone, Debug)]
pub struct Function {
    /// Its name, for the text form.
    pub name: String,
    /// The level it is written for.
    pub isa: Isa,
    /// The parameters, in the order of the System V integer arguments (at most 6).
    pub params: Vec<G>,
    /// The code.
    pub ops: Vec<Op>,
    /// Constants.
    pub pool: Pool,
    classes: Vec<Class>,
    slots: Vec<Class>,
    labels: u32,
}

impl Function {
    /// An empty function.
    pub fn new(name: impl Into<String>, isa: Isa) -> Function {
        Function {
            name: name.into(),
            isa,
            params: Vec::new(),
            ops: Vec::new(),
            pool: Pool::default(),
            classes: Vec::new(),
            slots: Vec::new(),
            labels: 0,
        }
    }

    /// A new register of a class, by number.
    pub(in crate::x86) fn register(&mut self, class: Class) -> u32 {
        self.classes.push(class);
        self.classes.len() as u32 - 1
    }

    /// A new place in the frame for a register of a class.
    pub(in crate::x86) fn slot(&mut self, class: Class) -> Slot {
        self.slots.push(class);
        Slot(self.slots.len() as u32 - 1)
    }

    /// A new vector register.
    pub fn vector(&mut self) -> V {
        V(self.register(Class::Vector))
    }

    /// A new general register.
    pub fn general(&mut self) -> G {
        G(self.register(Class::General))
    }

    /// A new mask.
    pub fn mask(&mut self) -> K {
        K(self.register(Class::Mask))
    }

    /// A new label, not placed yet.
    pub fn label(&mut self) -> Label {
        self.labels += 1;
        Label(self.labels - 1)
    }

    /// The next integer parameter.
    pub fn param(&mut self) -> G {
        let g = self.general();
        self.params.push(g);
        g
    }

    /// The class of each virtual register, by number.
    pub fn classes(&self) -> &[Class] {
        &self.classes
    }

    /// The class of each place in the frame, by number.
    pub fn slots(&self) -> &[Class] {
        &self.slots
    }

    /// As many lanes of an element type as a register of the level holds.
    pub fn whole(&self, elem: Elem) -> Type {
        elem.by((self.isa.bytes() / elem.bytes()) as u8)
    }

    /// Appends an operation.
    pub fn push(&mut self, op: Op) {
        self.ops.push(op);
    }

    /// A register with all lanes zero.
    pub fn zero(&mut self) -> V {
        let dst = self.vector();
        self.push(Op::Zero { dst });
        dst
    }

    /// A constant on every lane, from the pool: one element where operands may be that, a whole vector where not.
    pub fn constant(&mut self, ty: Type, bits: u64) -> Operand {
        let element = &bits.to_le_bytes()[..ty.elem.bytes() as usize];
        if self.isa.is_evex() && element.len() >= 4 {
            return Operand::Broadcast(Mem::pool(self.pool.place(element)));
        }
        let all = element.repeat(usize::from(ty.lanes));
        Operand::Mem(Mem::pool(self.pool.place(&all)))
    }

    /// A constant on every lane, in a register.
    pub fn constant_register(&mut self, ty: Type, bits: u64) -> V {
        match self.constant(ty, bits) {
            Operand::Reg(v) => v,
            Operand::Mem(m) => self.load(ty, m, None),
            Operand::Broadcast(m) => self.broadcast(ty, m),
        }
    }

    /// Loads a vector, or its lanes under `mask` with zeros elsewhere.
    pub fn load(&mut self, ty: Type, mem: Mem, mask: Option<K>) -> V {
        let dst = self.vector();
        self.push(Op::Load { ty, dst, mem, mask });
        dst
    }

    /// Loads one element to every lane.
    pub fn broadcast(&mut self, ty: Type, mem: Mem) -> V {
        let dst = self.vector();
        self.push(Op::Broadcast { ty, dst, mem });
        dst
    }

    /// `op(a, b)` in a new register.
    pub fn binary(&mut self, op: Binary, ty: Type, a: V, b: Operand) -> V {
        let dst = self.vector();
        self.push(Op::Binary { op, ty, dst, a, b });
        dst
    }

    /// `op(a)` in a new register.
    pub fn unary(&mut self, op: Unary, ty: Type, a: Operand) -> V {
        let dst = self.vector();
        self.push(Op::Unary { op, ty, dst, a });
        dst
    }

    /// Lanes as another element type, in a new register.
    pub fn convert(&mut self, from: Type, to: Elem, src: Operand) -> V {
        let dst = self.vector();
        self.push(Op::Convert { from, to, dst, src });
        dst
    }

    /// The lanes of which a comparison holds.
    pub fn compare(&mut self, op: Comparison, ty: Type, a: V, b: Operand) -> K {
        let dst = self.mask();
        self.push(Op::Compare { op, ty, dst, a, b });
        dst
    }

    /// `mask ? a : b` in a new register.
    pub fn select(&mut self, ty: Type, mask: K, a: V, b: V) -> V {
        let dst = self.vector();
        self.push(Op::Select { ty, dst, mask, a, b });
        dst
    }

    /// `op(a, b)` of masks.
    pub fn logic(&mut self, op: Logic, a: K, b: K) -> K {
        let dst = self.mask();
        self.push(Op::Logic { op, dst, a, b });
        dst
    }

    /// A mask of the lanes `i` with `i + skip < count`; see [`Op::FirstLanes`].
    pub fn first_lanes(&mut self, count: G, skip: u8) -> K {
        let (dst, scratch) = (self.mask(), (self.general(), self.vector()));
        self.push(Op::FirstLanes {
            dst,
            count,
            skip,
            scratch,
        });
        dst
    }

    /// Loads eight bytes.
    pub fn load_general(&mut self, mem: Mem) -> G {
        let dst = self.general();
        self.push(Op::LoadGeneral { dst, mem });
        dst
    }

    /// The address of `mem`.
    pub fn lea(&mut self, mem: Mem) -> G {
        let dst = self.general();
        self.push(Op::Lea { dst, mem });
        dst
    }

    /// `dst = op(dst, src)`.
    pub fn general_op(&mut self, op: GeneralOp, dst: G, src: Scalar) {
        self.push(Op::General { op, dst, src });
    }

    /// Places a label here.
    pub fn place(&mut self, label: Label) {
        self.push(Op::Label(label));
    }

    /// Goes to `to` if `a cond b`.
    pub fn branch(&mut self, cond: Cond, a: G, b: Scalar, to: Label) {
        self.push(Op::Branch { cond, a, b, to });
    }

    /// A loop that runs its body while at least `step` remains in `counter`, taking `step` from it each time; what is left
    /// (less than `step`) stays in `counter`.
    pub fn counted_loop(&mut self, counter: G, step: i32, body: impl FnOnce(&mut Function)) {
        let (head, done) = (self.label(), self.label());
        self.branch(Cond::Lt, counter, Scalar::Imm(step), done);
        self.place(head);
        body(self);
        self.general_op(GeneralOp::Sub, counter, Scalar::Imm(step));
        self.branch(Cond::Ge, counter, Scalar::Imm(step), head);
        self.place(done);
    }

    /// Where each label stands, by number.
    ///
    /// # Errors
    /// [`Error::Malformed`] for a label that is placed twice, or is a branch target and not placed; for code that can run
    /// past its end, more than six parameters, a scale that is not 1, 2, 4 or 8, or an operation that the level has not.
    pub fn label_places(&self) -> Result<Vec<usize>, Error> {
        let malformed = |at: usize, what: String| Error::Malformed {
            function: self.name.clone(),
            at,
            what,
        };
        let mut places = vec![usize::MAX; self.labels as usize];
        for (at, op) in self.ops.iter().enumerate() {
            if let Op::Label(l) = op
                && std::mem::replace(&mut places[l.0 as usize], at) != usize::MAX
            {
                return Err(malformed(at, format!("{l} is placed a second time")));
            }
        }
        for (at, op) in self.ops.iter().enumerate() {
            if let Some(to) = op.target()
                && places[to.0 as usize] == usize::MAX
            {
                return Err(malformed(at, format!("branch to {to}, which is placed nowhere")));
            }
            if let Some(what) = self.fault(op) {
                return Err(malformed(at, what));
            }
        }
        if !self.ops.last().is_some_and(Op::ends) {
            return Err(malformed(
                self.ops.len(),
                "code runs past its end; expected `return` or `jump`".into(),
            ));
        }
        if self.params.len() > 6 {
            return Err(malformed(
                0,
                format!("{} parameters; at most 6 travel in registers", self.params.len()),
            ));
        }
        Ok(places)
    }

    /// What is wrong with the operands of `op`; whether the level has an instruction for it, the assembler says.
    fn fault(&self, op: &Op) -> Option<String> {
        let broadcasts = |o: &Operand| matches!(o, Operand::Broadcast(_));
        let broadcast = match op {
            Op::Fma { b, .. } | Op::Dot { b, .. } | Op::Binary { b, .. } | Op::Compare { b, .. } => broadcasts(b),
            Op::Unary { a: b, .. } | Op::Convert { src: b, .. } => broadcasts(b),
            Op::MulAdd { b, c, .. } => {
                if b.mem().is_some() && c.mem().is_some() {
                    return Some("two operands in memory; expected one at most".into());
                }
                broadcasts(b) || broadcasts(c)
            }
            Op::MatrixLoad { mem, .. } | Op::MatrixStore { mem, .. } if mem.index.is_none() => {
                return Some("a matrix without an index, which says how far apart its rows are".into());
            }
            Op::FirstLanes { skip, .. } if *skip > 63 => return Some(format!("skip {skip} is above 63")),
            _ => false,
        };
        if broadcast && !self.isa.is_evex() {
            return Some("broadcast as an operand needs AVX-512; use the `broadcast` operation".into());
        }
        let mem = op.mem()?;
        match mem.index {
            Some((_, scale)) if ![1, 2, 4, 8].contains(&scale) => {
                Some(format!("index scale {scale}; expected 1, 2, 4 or 8"))
            }
            Some(_) if mem.base == Base::Pool => Some("an index into the pool".into()),
            _ => None,
        }
    }
}
