//! From registers and a stack to the functions that have called each other.
//!
//! It follows the tables that compilers write for exceptions (`.eh_frame`), so it needs no frame pointers and
//! no debug information. Of a blocked thread the kernel tells only two registers; where the tables ask for
//! another one, [`callers`] looks on the stack for the frame's end.

use gimli::{
    CfaRule, Evaluation, EvaluationResult, Expression, Location, Register, RegisterRule, StoreOnHeap,
    UnwindContext, UnwindExpression, UnwindTableRow, Value, X86_64,
};

use super::callers;
use super::modules::{Function, Modules};
use super::own_memory::{OwnMemory, Words};

/// A deeper stack is a recursion without end, of which nobody reads more.
const MAX_FRAMES: usize = 400;
/// So often a frame's end may have to be looked for on one stack.
const MAX_SEARCHES: usize = 3;
/// So many unproven ends of a frame are worth a try.
const MAX_GUESSES: usize = 24;

/// The registers by their numbers in the tables, those that are known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Registers([Option<u64>; 17]);

impl Registers {
    pub(super) fn new(pc: u64, sp: u64) -> Self {
        let mut registers = Self::default();
        registers.set(X86_64::RA, Some(pc));
        registers.set(X86_64::RSP, Some(sp));
        registers
    }

    pub(super) fn get(&self, register: Register) -> Option<u64> {
        self.0.get(usize::from(register.0)).copied().flatten()
    }

    pub(super) fn set(&mut self, register: Register, value: Option<u64>) {
        if let Some(place) = self.0.get_mut(usize::from(register.0)) {
            *place = value;
        }
    }

    fn after_call(&self, cfa: u64) -> Self {
        let mut registers = Self::default();
        // The others a function may change without a word.
        for kept in [X86_64::RBX, X86_64::RBP, X86_64::R12, X86_64::R13, X86_64::R14, X86_64::R15] {
            registers.set(kept, self.get(kept));
        }
        registers.set(X86_64::RSP, Some(cfa));
        registers
    }
}

/// How far a stack was followed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum End {
    /// Not to its beginning: from here on nothing is known.
    #[default]
    Lost,
    /// For as many frames as anybody wants to see.
    TooDeep,
    /// To where the thread began.
    Beginning,
}

/// The functions on a stack, innermost first.
#[derive(Debug, Default)]
pub(super) struct Unwound {
    /// For each frame an address inside of the instruction that it is at, so the one before the return
    /// address.
    pub(super) addresses: Vec<u64>,
    pub(super) end: End,
    /// From this frame on it is only likely that the frames are the right ones.
    pub(super) guessed_from: Option<usize>,
}

impl Unwound {
    /// What is missing, in words.
    pub(super) fn missing(&self) -> Option<String> {
        match self.end {
            End::Lost => Some("the outer frames could not be found".to_owned()),
            End::TooDeep => Some(format!("its stack is deeper than {} frames", self.addresses.len())),
            End::Beginning => None,
        }
    }
}

/// Whose stack is unwound, and with what.
pub(super) struct Unwinder<'a> {
    pub(super) modules: &'a Modules,
    pub(super) memory: &'a OwnMemory,
    pub(super) stack: &'a dyn Words,
}

impl Unwinder<'_> {
    /// Follows the stack of a thread that was interrupted, or went into the kernel, with these registers.
    pub(super) fn unwind(&self, registers: Registers) -> Unwound {
        self.walk(registers, true, MAX_SEARCHES)
    }

    /// `interrupted`: the first frame is not in the middle of a call.
    fn walk(&self, mut registers: Registers, mut interrupted: bool, searches: usize) -> Unwound {
        let mut unwound = Unwound::default();
        while let (Some(pc), Some(sp)) = (registers.get(X86_64::RA), registers.get(X86_64::RSP)) {
            if pc == 0 {
                unwound.end = End::Beginning;
                break;
            }
            if unwound.addresses.len() == MAX_FRAMES {
                unwound.end = End::TooDeep;
                break;
            }
            let address = if interrupted { pc } else { pc - 1 };
            unwound.addresses.push(address);
            let Some(function) = self.modules.function(self.memory, address) else { break };
            let mut context = UnwindContext::new();
            let found = function.entry.unwind_info_for_address(
                &function.frames,
                &function.bases,
                &mut context,
                address,
            );
            let Ok(row) = found else { break };
            if row.register(X86_64::RA) == RegisterRule::Undefined {
                unwound.end = End::Beginning;
                break;
            }
            let Some(cfa) = self.cfa(&function, row, &registers) else {
                self.search(&function, row, &registers, searches, &mut unwound);
                break;
            };
            let trampoline = function.entry.is_signal_trampoline();
            // Every caller's frame lies above; only a signal may have come on another stack.
            if cfa <= sp && !trampoline {
                break;
            }
            registers = self.caller(&function, row, &registers, cfa);
            interrupted = trampoline;
        }
        unwound
    }

    /// Tries what may be the end of this function's frame, and takes the first that is proven and leads to
    /// the beginning of the stack, or far enough; without such a one the first that leads there at all.
    fn search(
        &self,
        function: &Function<'_>,
        row: &UnwindTableRow<usize>,
        registers: &Registers,
        searches: usize,
        unwound: &mut Unwound,
    ) {
        let Some(sp) = registers.get(X86_64::RSP).filter(|_| searches > 0) else { return };
        let own = function.entry.initial_address()..function.entry.end_address();
        let mut likely = None;
        let mut tries = 0..MAX_GUESSES;
        for candidate in callers::candidates(self.modules, self.memory, self.stack, sp, &own) {
            if !candidate.proven && (likely.is_some() || tries.next().is_none()) {
                continue;
            }
            let caller = self.caller(function, row, registers, candidate.cfa);
            let mut rest = self.walk(caller, false, searches - 1);
            // Where only the start of the thread remains there is nothing to confuse it with.
            let certain = candidate.proven || rest.addresses.len() <= 2;
            match rest.end != End::Lost {
                true if certain => {
                    likely = Some(rest);
                    break;
                }
                true => {
                    rest.guessed_from = Some(0);
                    likely = Some(rest);
                }
                false => {}
            }
        }
        if let Some(rest) = likely {
            unwound.guessed_from = rest.guessed_from.map(|index| unwound.addresses.len() + index);
            unwound.addresses.extend(rest.addresses);
            unwound.end = rest.end;
        }
    }

    /// Where the caller's part of the stack begins. None if that hangs on a register that is not known.
    fn cfa(
        &self,
        function: &Function<'_>,
        row: &UnwindTableRow<usize>,
        registers: &Registers,
    ) -> Option<u64> {
        match row.cfa() {
            CfaRule::RegisterAndOffset { register, offset } => {
                registers.get(*register)?.checked_add_signed(*offset)
            }
            CfaRule::Expression(expression) => self.evaluate(function, expression, registers, None),
        }
    }

    fn caller(
        &self,
        function: &Function<'_>,
        row: &UnwindTableRow<usize>,
        registers: &Registers,
        cfa: u64,
    ) -> Registers {
        let mut caller = registers.after_call(cfa);
        for (register, rule) in row.registers() {
            let at = |offset: &i64| self.stack.word(cfa.checked_add_signed(*offset)?);
            let value = match rule {
                RegisterRule::SameValue => registers.get(*register),
                RegisterRule::Offset(offset) => at(offset),
                RegisterRule::ValOffset(offset) => cfa.checked_add_signed(*offset),
                RegisterRule::Register(other) => registers.get(*other),
                RegisterRule::Expression(expression) => self
                    .evaluate(function, expression, registers, Some(cfa))
                    .and_then(|address| self.stack.word(address)),
                RegisterRule::ValExpression(expression) => {
                    self.evaluate(function, expression, registers, Some(cfa))
                }
                RegisterRule::Constant(value) => Some(*value),
                _ => None,
            };
            caller.set(*register, value);
        }
        caller
    }

    fn evaluate(
        &self,
        function: &Function<'_>,
        expression: &UnwindExpression<usize>,
        registers: &Registers,
        initial: Option<u64>,
    ) -> Option<u64> {
        let Expression(code) = expression.get(&function.frames).ok()?;
        let encoding = function.entry.cie().encoding();
        let mut evaluation = Evaluation::<_, StoreOnHeap>::new_in(code, encoding);
        // Nobody else bounds what a broken table may ask for.
        evaluation.set_max_iterations(1000);
        if let Some(initial) = initial {
            evaluation.set_initial_value(initial);
        }
        let mut step = evaluation.evaluate().ok()?;
        loop {
            step = match step {
                EvaluationResult::Complete => break,
                EvaluationResult::RequiresRegister { register, .. } => {
                    evaluation.resume_with_register(Value::Generic(registers.get(register)?)).ok()?
                }
                EvaluationResult::RequiresMemory { address, size: 8, .. } => {
                    evaluation.resume_with_memory(Value::Generic(self.stack.word(address)?)).ok()?
                }
                _ => return None,
            };
        }
        match evaluation.as_result().last()?.location {
            Location::Address { address } => Some(address),
            _ => None,
        }
    }
}
