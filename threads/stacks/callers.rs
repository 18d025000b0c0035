//! Where a function was called from, when the register that would say so is not known.
//!
//! The call has left its return address on the stack, just below the end of the function's frame. Which of
//! the words there it is shows the instruction before it: a call whose target is this very function proves
//! it, a call through a register or a table of functions only makes it likely.

use std::ops::Range;

use super::modules::Modules;
use super::own_memory::{OwnMemory, Words};

/// A frame larger than that is not searched. In words.
const MAX_FRAME: u64 = 8 << 10;

/// What may be the end of a function's frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    /// The first address above the return address.
    pub(super) cfa: u64,
    /// Whether the call before the return address calls the function.
    pub(super) proven: bool,
}

/// Looks from `sp` upwards for calls that may be those of the function `own`.
pub(super) fn candidates<'a>(
    modules: &'a Modules,
    memory: &'a OwnMemory,
    stack: &'a dyn Words,
    sp: u64,
    own: &'a Range<u64>,
) -> impl Iterator<Item = Candidate> + 'a {
    let words = (0..MAX_FRAME).map_while(move |index| {
        let at = sp.checked_add(8 * index)?;
        Some((at, stack.word(at)?))
    });
    words.filter_map(move |(at, word)| {
        modules.at(word)?;
        let proven = match call_before(memory, word, own.start)? {
            Call::Proven => true,
            // What returns into the function itself are calls that it has made before.
            Call::Possible if own.contains(&word) => return None,
            Call::Possible => false,
        };
        Some(Candidate { cfa: at + 8, proven })
    })
}

#[derive(Debug, PartialEq, Eq)]
enum Call {
    /// Of the function.
    Proven,
    /// Of some function.
    Possible,
}

/// So much code before a call may load what is called.
const CODE: usize = 40;

/// The call instruction that ends just before `address`, if there is one.
fn call_before(memory: &OwnMemory, address: u64, function: u64) -> Option<Call> {
    let code = memory.bytes(address.checked_sub(CODE as u64)?, CODE)?;
    let after = |end: usize| address - (CODE - end) as u64;
    // The target that lies at this distance behind the instruction that ends at `end`.
    let relative = |end: usize| {
        let offset = i32::from_le_bytes(code[end - 4..end].try_into().ok()?);
        after(end).checked_add_signed(offset.into())
    };
    let proven_if = |calls| Some(if calls { Call::Proven } else { Call::Possible });
    if code[CODE - 5] == 0xe8 {
        return proven_if(relative(CODE) == Some(function));
    }
    // Functions of other modules are called through a table that the linker has filled in.
    let imported = |end: usize| relative(end).and_then(|entry| memory.word(entry)) == Some(function);
    if code[CODE - 6..CODE - 4] == [0xff, 0x15] {
        return proven_if(imported(CODE));
    }
    (2..=7).find(|length| indirect_call_length(&code[CODE - length..]) == Some(*length))?;
    // Without optimisation the entry is loaded into a register first: `mov entry(%rip), %register`.
    let loads = |start: &usize| matches!(code[*start..], [0x48 | 0x4c, 0x8b, mode, ..] if mode & 0xc7 == 5);
    proven_if((0..CODE - 7).filter(loads).any(|start| imported(start + 7)))
}

/// The length of the instruction `call r/m64` that `code` begins with.
fn indirect_call_length(code: &[u8]) -> Option<usize> {
    let [0xff, mode, rest @ ..] = code else { return None };
    let (addressing, operation, register) = (mode >> 6, mode >> 3 & 7, mode & 7);
    if operation != 2 {
        return None;
    }
    let scaled = usize::from(addressing != 3 && register == 4);
    let displacement = match addressing {
        0 if register == 5 => 4,
        0 if scaled == 1 && rest.first()? & 7 == 5 => 4,
        1 => 1,
        2 => 4,
        _ => 0,
    };
    Some(2 + scaled + displacement)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_an_indirect_call_is_known_for_every_way_of_addressing() {
        for (code, length) in [
            (&[0xff, 0xd0][..], Some(2)),
            (&[0xff, 0x10], Some(2)),
            (&[0xff, 0x50, 0x18], Some(3)),
            (&[0xff, 0x14, 0xc8], Some(3)),
            (&[0xff, 0x54, 0xc8, 0x10], Some(4)),
            (&[0xff, 0x15, 0, 0, 0, 0], Some(6)),
            (&[0xff, 0x90, 0, 1, 0, 0], Some(6)),
            (&[0xff, 0x94, 0xc8, 0, 1, 0, 0], Some(7)),
            (&[0xff, 0x14, 0xc5, 0, 1, 0, 0], Some(7)),
            // A jump.
            (&[0xff, 0x25, 0, 0, 0, 0], None),
            (&[0x90, 0x90], None),
        ] {
            assert_eq!(indirect_call_length(code), length, "{code:02x?}");
        }
    }
}
