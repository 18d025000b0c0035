//! The registers and the stack of a running thread, as it was at one moment.
//!
//! The thread is sent a signal, whose handler copies both and returns: no call into the allocator, no lock,
//! nothing of the thread's own state is touched, so it does not matter what the thread was doing. The signal
//! is a real-time one that nobody else uses; what it carries names a slot and a request, so one that comes
//! late is known and ignored.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use gimli::Register;
use rustix::thread::{Timespec, futex};

use super::own_memory::{Copied, OwnMemory};
use super::unwind::Registers;
use crate::locks::Mutex;

/// Frames that lie deeper are not copied.
pub(super) const STACK: usize = 64 << 10;
/// So many threads can be asked at once. They answer when the scheduler lets them run, so a busy machine
/// needs as many rounds as there are threads divided by this.
const SLOTS: usize = 32;

// What a slot is doing, in the lowest bits; above them the number of the request.
const WANTED: u32 = 1;
const WRITING: u32 = 2;
const DONE: u32 = 3;
const PHASES: u32 = 4;

const SP: usize = 7;

struct Slot {
    taken: AtomicBool,
    phase: AtomicU32,
    registers: [AtomicU64; 17],
    length: AtomicUsize,
    /// `STACK` bytes, made when first needed and never freed, because a signal may come late.
    stack: AtomicPtr<u8>,
}

impl Slot {
    const fn new() -> Self {
        Self {
            taken: AtomicBool::new(false),
            phase: AtomicU32::new(0),
            registers: [const { AtomicU64::new(0) }; 17],
            length: AtomicUsize::new(0),
            stack: AtomicPtr::new(ptr::null_mut()),
        }
    }
}

static ALL: [Slot; SLOTS] = [const { Slot::new() }; SLOTS];
static REQUESTS: AtomicU32 = AtomicU32::new(0);
static INSTALLED: OnceLock<Installed> = OnceLock::new();

struct Installed {
    signal: i32,
    memory: OwnMemory,
}

/// Sends the signal; its handler is in place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Snapshots {
    signal: i32,
}

/// Why there is no snapshot.
#[derive(Debug)]
pub(super) enum Missed {
    /// The thread has ended.
    Gone,
    /// The thread has not run until the deadline.
    Late,
    /// The signal could not be sent.
    Unsent(io::Error),
}

impl Snapshots {
    /// Installs the handler, once for the process.
    pub(super) fn install() -> io::Result<Self> {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new("stack snapshots", ());
        let _one = ONE_AT_A_TIME.lock();
        if let Some(installed) = INSTALLED.get() {
            return Ok(Self { signal: installed.signal });
        }
        let memory = OwnMemory::open()?;
        let unused = (libc::SIGRTMIN()..=libc::SIGRTMAX()).rev().find(|signal| is_unused(*signal));
        let signal = unused.ok_or_else(|| io::Error::other("every real-time signal is in use already"))?;
        // A signal that comes before it is known does nothing.
        let installed = INSTALLED.get_or_init(|| Installed { signal, memory });
        // SAFETY: the handler does nothing but what a handler may do (see there), and `action` is filled in.
        #[expect(unsafe_code, reason = "a handler that sees the registers can only be installed like this")]
        let result = unsafe {
            let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
            action.sa_sigaction = on_signal as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_ONSTACK;
            // Nothing else may interrupt the handler, so that it is always short.
            libc::sigfillset(&mut action.sa_mask);
            libc::sigaction(installed.signal, &action, ptr::null_mut())
        };
        if result == 0 { Ok(Self { signal }) } else { Err(io::Error::last_os_error()) }
    }

    /// Whether a thread that blocks these signals would not answer.
    pub(super) fn is_blocked_in(self, mask: u64) -> bool {
        mask & (1 << (self.signal - 1)) != 0
    }

    /// Asks the thread for a snapshot. None if too many are asked already: take some first.
    pub(super) fn ask(self, thread: u32) -> Option<Result<Asked, Missed>> {
        let index = ALL.iter().position(|slot| !slot.taken.swap(true, Ordering::Acquire))?;
        let slot = &ALL[index];
        if slot.stack.load(Ordering::Relaxed).is_null() {
            let stack: &'static mut [u8] = Box::leak(vec![0; STACK].into_boxed_slice());
            slot.stack.store(stack.as_mut_ptr(), Ordering::Release);
        }
        let request = REQUESTS.fetch_add(PHASES, Ordering::Relaxed) & !(PHASES - 1);
        slot.phase.store(request | WANTED, Ordering::Release);
        let asked = Asked { slot, request };
        let payload = (index as u64) << 32 | u64::from(request | WANTED);
        Some(match send(self.signal, thread, payload) {
            Ok(()) => Ok(asked),
            Err(error) => {
                let gone = error.raw_os_error() == Some(libc::ESRCH);
                Err(if gone { Missed::Gone } else { Missed::Unsent(error) })
            }
        })
    }
}

/// A snapshot that was asked for. Its slot is free again when it is dropped.
pub(super) struct Asked {
    slot: &'static Slot,
    request: u32,
}

impl Asked {
    pub(super) fn is_answered(&self) -> bool {
        self.slot.phase.load(Ordering::Acquire) == self.request | DONE
    }

    /// Waits for the thread to answer.
    pub(super) fn wait(&self, deadline: Instant) -> Result<(Registers, Copied<'_>), Missed> {
        loop {
            let phase = self.slot.phase.load(Ordering::Acquire);
            if phase == self.request | DONE {
                return Ok(self.read());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Missed::Late);
            }
            // Never fails: nobody waits for that long.
            let left = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
            // Whatever ends the wait, the loop looks again.
            let _ = futex::wait(&self.slot.phase, futex::Flags::PRIVATE, phase, Some(&left));
        }
    }

    fn read(&self) -> (Registers, Copied<'_>) {
        let mut registers = Registers::default();
        for (number, value) in (0..).zip(&self.slot.registers) {
            registers.set(Register(number), Some(value.load(Ordering::Relaxed)));
        }
        let stack = self.slot.stack.load(Ordering::Relaxed);
        let length = self.slot.length.load(Ordering::Relaxed);
        // SAFETY: the handler has written `length` bytes there, at most `STACK`, before it said that it was
        // done, and nobody writes again before this value is dropped.
        #[expect(unsafe_code, reason = "the buffer is shared with a signal handler")]
        let bytes = unsafe { std::slice::from_raw_parts(stack, length) };
        (registers, Copied { start: self.slot.registers[SP].load(Ordering::Relaxed), bytes })
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let (slot, request) = (self.slot, self.request);
        // A handler that has not begun will not begin any more. One that is at it for so long that nobody
        // waits for it may go on writing, so its slot is not used again.
        let not_begun =
            slot.phase.compare_exchange(request | WANTED, 0, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if not_begun || slot.phase.load(Ordering::Acquire) == request | DONE {
            slot.taken.store(false, Ordering::Release);
        }
    }
}

/// Whether nobody has set what the signal does.
fn is_unused(signal: i32) -> bool {
    // SAFETY: sigaction(2) fills in `old` or fails, and zeroes are a value of it.
    #[expect(unsafe_code, reason = "there is no safe way to ask")]
    unsafe {
        let mut old: libc::sigaction = MaybeUninit::zeroed().assume_init();
        libc::sigaction(signal, ptr::null(), &mut old) == 0 && old.sa_sigaction == libc::SIG_DFL
    }
}

/// The kernel's `siginfo_t` of a queued signal; the C library's keeps these fields private.
#[repr(C)]
struct QueuedSignal {
    signal: i32,
    error: i32,
    code: i32,
    _alignment: i32,
    process: i32,
    user: u32,
    payload: u64,
    _rest: [u64; 12],
}

const _: () = assert!(size_of::<QueuedSignal>() == size_of::<libc::siginfo_t>());

fn send(signal: i32, thread: u32, payload: u64) -> io::Result<()> {
    let process = std::process::id();
    let info = QueuedSignal {
        signal,
        error: 0,
        code: libc::SI_QUEUE,
        _alignment: 0,
        process: process as i32,
        user: rustix::process::getuid().as_raw(),
        payload,
        _rest: [0; 12],
    };
    let info = ptr::from_ref(&info);
    // SAFETY: `info` has the kernel's layout and lives during the call, and the handler of the signal is in
    // place.
    #[expect(unsafe_code, reason = "the C library cannot queue a signal with a value for one thread")]
    unsafe {
        match libc::syscall(libc::SYS_rt_tgsigqueueinfo, process, thread, signal, info) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// The handler. All that it does is system calls that leave `errno` alone, and stores to its slot.
extern "C" fn on_signal(_: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel gives both pointers to a handler that was installed with SA_SIGINFO, and a queued
    // signal's value is readable as such; that any other process has sent does no harm, because it names no
    // request.
    #[expect(unsafe_code, reason = "this is what a handler gets")]
    let (payload, context) =
        unsafe { ((*info).si_value().sival_ptr as u64, &(*context.cast::<libc::ucontext_t>()).uc_mcontext) };
    let wanted = payload as u32;
    let (Some(slot), Some(installed)) = (ALL.get((payload >> 32) as usize), INSTALLED.get()) else { return };
    let request = wanted & !(PHASES - 1);
    let writing = request | WRITING;
    if wanted & (PHASES - 1) != WANTED
        || slot.phase.compare_exchange(wanted, writing, Ordering::AcqRel, Ordering::Acquire).is_err()
    {
        return;
    }
    for (place, value) in slot.registers.iter().zip(interrupted_registers(context)) {
        place.store(value, Ordering::Relaxed);
    }
    let sp = slot.registers[SP].load(Ordering::Relaxed);
    let memory: BorrowedFd<'_> = installed.memory.as_fd();
    // SAFETY: the buffer has `STACK` bytes, was published before the signal was sent, and is this handler's
    // alone while the slot's phase is "writing".
    #[expect(unsafe_code, reason = "the buffer is shared with the one that asks")]
    let buffer = unsafe { std::slice::from_raw_parts_mut(slot.stack.load(Ordering::Acquire), STACK) };
    // It ends early where the stack does.
    let length = rustix::io::pread(memory, buffer, sp).unwrap_or(0);
    slot.length.store(length, Ordering::Relaxed);
    slot.phase.store(request | DONE, Ordering::Release);
    let _ = futex::wake(&slot.phase, futex::Flags::PRIVATE, 1);
}

/// The general registers, by their numbers in the unwind tables.
#[cfg(target_arch = "x86_64")]
fn interrupted_registers(context: &libc::mcontext_t) -> [u64; 17] {
    use libc::{
        REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15, REG_RAX, REG_RBP, REG_RBX,
    };
    use libc::{REG_RCX, REG_RDI, REG_RDX, REG_RIP, REG_RSI, REG_RSP};
    [
        REG_RAX, REG_RDX, REG_RCX, REG_RBX, REG_RSI, REG_RDI, REG_RBP, REG_RSP, REG_R8, REG_R9, REG_R10,
        REG_R11, REG_R12, REG_R13, REG_R14, REG_R15, REG_RIP,
    ]
    .map(|index| context.gregs[index as usize] as u64)
}

/// On another architecture nobody asks.
#[cfg(not(target_arch = "x86_64"))]
fn interrupted_registers(_: &libc::mcontext_t) -> [u64; 17] {
    [0; 17]
}
