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
        let proven = match call_before(modules, memory, word, own.start)? {
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

/// The longest of the calls that are looked for.
const LONGEST: usize = 7;
/// The code of a larger function is not searched for what it loads.
const MAX_FUNCTION: u64 = 64 << 10;

/// The call instruction that ends just before `address`, if there is one.
fn call_before(modules: &Modules, memory: &OwnMemory, address: u64, function: u64) -> Option<Call> {
    let code = memory.bytes(address.checked_sub(LONGEST as u64)?, LONGEST)?;
    let proven_if = |calls| Some(if calls { Call::Proven } else { Call::Possible });
    if code[LONGEST - 5] == 0xe8 {
        return proven_if(relative(&code, address) == Some(function));
    }
    // Functions of other modules are called through a table that the linker has filled in.
    let imported = |entry: Option<u64>| entry.and_then(|entry| memory.word(entry)) == Some(function);
    if code[LONGEST - 6..LONGEST - 4] == [0xff, 0x15] {
        return proven_if(imported(relative(&code, address)));
    }
    (2..=LONGEST).find(|length| indirect_call_length(&code[LONGEST - length..]) == Some(*length))?;
    let Some(register) = called_register(&code) else { return Some(Call::Possible) };
    let caller = || {
        let start = modules.function(memory, address - 1)?.entry.initial_address();
        let length = address.checked_sub(start).filter(|length| *length <= MAX_FUNCTION)?;
        let code = memory.bytes(start, usize::try_from(length).ok()?)?;
        loaded_from(&code[..code.len() - 2], start, register)
    };
    proven_if(imported(caller()))
}

/// What the distance in the last four bytes of the code points to: it counts from their end, which is at `end`.
fn relative(code: &[u8], end: u64) -> Option<u64> {
    let offset = i32::from_le_bytes(*code.last_chunk()?);
    end.checked_add_signed(offset.into())
}

/// The register of the `call *%register` that the code ends with.
fn called_register(code: &[u8]) -> Option<u8> {
    match *code {
        [.., 0x41, 0xff, mode @ 0xd0..=0xd7] => Some(8 + (mode & 7)),
        [.., 0xff, mode @ 0xd0..=0xd7] => Some(mode & 7),
        _ => None,
    }
}

/// What the functions that are called leave alone.
const KEPT: [u8; 6] = [3, 5, 12, 13, 14, 15];

/// The table entry that is in the register at the end of this code of a function, which begins at `start`.
///
/// A compiler that optimises loads the entry of a function that is called in a loop before the loop, and one that
/// does not, just before the call: `mov entry(%rip), %register`. Any other write to the register since
/// then makes it unknown. The code is not decoded from instruction to instruction, but looked at from each of its
/// bytes on, so that there may seem to be a write where there is none; there the end of the frame is a guess.
fn loaded_from(code: &[u8], start: u64, register: u8) -> Option<u64> {
    let (mut entry, mut at) = (None, 0);
    while let Some(rest @ [_, ..]) = code.get(at..) {
        match rest {
            [prefix @ (0x48 | 0x4c), 0x8b, mode, _, _, _, _, ..]
                if mode & 0xc7 == 5 && (prefix & 4) << 1 | mode >> 3 & 7 == register =>
            {
                at += 7;
                entry = relative(&code[..at], start.checked_add(at as u64)?);
                continue;
            }
            _ if writes_to(register, rest) => entry = None,
            _ if !KEPT.contains(&register) && calls(rest) => entry = None,
            _ => {}
        }
        at += 1;
    }
    entry
}

fn calls(code: &[u8]) -> bool {
    code[0] == 0xe8 || indirect_call_length(code).is_some()
}

/// Whether the code begins with an instruction that gives the register another value. Not looked for is `pop`,
/// which gives it back to the caller at an end of the function, from where there is no way on.
fn writes_to(register: u8, code: &[u8]) -> bool {
    let (prefix, code) = match *code {
        [prefix @ 0x40..=0x4f, ref rest @ ..] => (prefix, rest),
        _ => (0, code),
    };
    let high = |bit: u8| (prefix >> bit & 1) << 3;
    let first = |mode: u8| mode >> 3 & 7 | high(2) == register;
    let second = |mode: u8| mode >= 0xc0 && mode & 7 | high(0) == register;
    match *code {
        // mov, lea, movsxd, add, or, and, sub, xor.
        [0x8b | 0x8d | 0x63 | 0x03 | 0x0b | 0x23 | 0x2b | 0x33, mode, ..] => first(mode),
        [0x89 | 0x01 | 0x09 | 0x21 | 0x29 | 0x31, mode, ..] => second(mode),
        // xchg.
        [0x87, mode, ..] => first(mode) || second(mode),
        // mov of a constant.
        [operation @ 0xb8..=0xbf, ..] => operation & 7 | high(0) == register,
        [0xc7, mode, ..] => second(mode),
        // Arithmetic with a constant, but not cmp; shifts; not, neg; inc, dec.
        [0x81 | 0x83, mode, ..] => mode >> 3 & 7 != 7 && second(mode),
        [0xc1 | 0xd1 | 0xd3, mode, ..] => second(mode),
        [0xf7, mode, ..] => matches!(mode >> 3 & 7, 2 | 3) && second(mode),
        [0xff, mode, ..] => mode >> 3 & 7 <= 1 && second(mode),
        // movzx, movsx, imul, cmov.
        [0x0f, 0xb6 | 0xb7 | 0xbe | 0xbf | 0xaf | 0x40..=0x4f, mode, ..] => first(mode),
        _ => false,
    }
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
    /// The entry that the register holds behind the code, which begins at 0x1000.
    fn loaded(register: u8, code: &[&[u8]]) -> Option<u64> {
        loaded_from(&code.concat(), 0x1000, register)
    }

    #[test]
    fn a_table_entry_that_was_loaded_long_before_a_call_is_still_known() {
        const R14: u8 = 14;
        // mov 0x100(%rip), %r14
        let load: &[u8] = &[0x4c, 0x8b, 0x35, 0, 1, 0, 0];
        let entry = Some(0x1000 + 7 + 0x100);
        // lea 0x8(%rsp), %rsi; mov %rax, %rdi; call *%r13; test %r14, %r14; cmp $1, %r14
        let others: &[u8] = &[
            0x48, 0x8d, 0x74, 0x24, 8, 0x48, 0x89, 0xc7, 0x41, 0xff, 0xd5, 0x4d, 0x85, 0xf6, 0x49, 0x83,
            0xfe, 1,
        ];
        assert_eq!(loaded(R14, &[load]), entry);
        assert_eq!(loaded(R14, &[load, others, others, others, others]), entry);
        // pop %r14; ret
        assert_eq!(loaded(R14, &[load, &[0x41, 0x5e, 0xc3], others]), entry);
        // mov %rdi, %r14
        assert_eq!(loaded(R14, &[&[0x49, 0x89, 0xfe], load, others]), entry.map(|entry| entry + 3));
        assert_eq!(loaded(13, &[load, others]), None, "another register");
        assert_eq!(loaded(6, &[load, others]), None, "the register of the same number without its prefix");
        assert_eq!(loaded(R14, &[others]), None, "never loaded");
    }

    #[test]
    fn a_register_that_was_written_to_since_holds_no_table_entry_any_more() {
        let load: &[u8] = &[0x4c, 0x8b, 0x35, 0, 1, 0, 0];
        for (what, write) in [
            ("mov %rdi, %r14", &[0x49, 0x89, 0xfe][..]),
            ("mov %r15, %r14", &[0x4d, 0x8b, 0xf7]),
            ("mov 8(%rsp), %r14", &[0x4c, 0x8b, 0x74, 0x24, 8]),
            ("lea 8(%rsp), %r14", &[0x4c, 0x8d, 0x74, 0x24, 8]),
            ("mov $1, %r14d", &[0x41, 0xbe, 1, 0, 0, 0]),
            ("mov $1, %r14", &[0x49, 0xc7, 0xc6, 1, 0, 0, 0]),
            ("xor %r14d, %r14d", &[0x45, 0x31, 0xf6]),
            ("add $8, %r14", &[0x49, 0x83, 0xc6, 8]),
            ("inc %r14", &[0x49, 0xff, 0xc6]),
            ("movzbl %al, %r14d", &[0x44, 0x0f, 0xb6, 0xf0]),
            ("cmove %rax, %r14", &[0x4c, 0x0f, 0x44, 0xf0]),
        ] {
            assert_eq!(loaded(14, &[load, write]), None, "{what}");
            assert_eq!(loaded(14, &[load, write, load]), Some(0x1000 + 14 + write.len() as u64 + 0x100));
        }
        // mov 0x100(%rip), %rax; call somewhere: what is called may do with it what it wants.
        let load_rax: &[u8] = &[0x48, 0x8b, 5, 0, 1, 0, 0];
        assert_eq!(loaded(0, &[load_rax, &[0x31, 0xff]]), Some(0x1107));
        assert_eq!(loaded(0, &[load_rax, &[0xe8, 1, 0, 0, 0]]), None);
        assert_eq!(loaded(0, &[load_rax, &[0xff, 0xd1]]), None);
    }

    #[test]
    fn the_register_that_is_called_is_known() {
        assert_eq!(called_register(&[0x90, 0x41, 0xff, 0xd6]), Some(14));
        assert_eq!(called_register(&[0x90, 0x90, 0xff, 0xd6]), Some(6));
        assert_eq!(called_register(&[0x90, 0xff, 0x50, 0x18]), None);
    }
}
