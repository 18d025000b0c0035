//! From addresses to functions, files and lines.
//!
//! Files and lines come from the debug information in the program's file, compressed or not, which takes a
//! while and some memory to read: what was found is kept, all the rest is given back. Debug information of
//! the kind that has lines only knows just the last part of a function's name; the whole of it is in the
//! symbol table.

use std::collections::{BTreeSet, HashMap};
use std::fs::{File, metadata, read_link};
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

use backtrace::SymbolName;
use object::read::elf::{ElfFile64, Sym as _};
use object::{NativeEndian, ReadCache, elf};

use super::modules::{Module, Modules};
use super::thread_stack::Frame;
use crate::memory::trim_memory;

/// As many addresses are remembered; a program that is stuck has far fewer.
const MAX_REMEMBERED: usize = 8192;

/// Names addresses, and remembers them.
#[derive(Debug)]
pub(super) struct Symbols {
    known: HashMap<u64, Arc<[Frame]>>,
    /// The modules to which the known addresses belong.
    loaded: Vec<(String, u64)>,
    /// The files as they were at the start. What stands in another one by now is not what runs here.
    files: HashMap<String, Identity>,
}

type Identity = (u64, u64, u64, i64);

fn identity(path: &str) -> Option<Identity> {
    metadata(path).ok().map(|data| (data.dev(), data.ino(), data.len(), data.mtime()))
}

impl Symbols {
    /// To be made before any thread can be stuck: the list of libraries that is made here for once takes a
    /// lock of the dynamic linker.
    pub(super) fn new(modules: &Modules) -> Self {
        let files = modules
            .iter()
            .filter_map(|module| Some((module.path.clone(), identity(&module.path)?)))
            .collect();
        // An address of no module: the list is made, but no debug information is read, which would take as long as
        // the whole start of a daemon.
        backtrace::resolve(std::ptr::without_provenance_mut(1), |_| ());
        Self { known: HashMap::new(), loaded: Vec::new(), files }
    }

    /// Whether the program's file is still the one that runs.
    pub(super) fn program_unchanged(&self, modules: &Modules) -> bool {
        modules.iter().find(|module| is_program(module)).is_none_or(|module| self.unchanged(module))
    }

    fn unchanged(&self, module: &Module) -> bool {
        self.files.get(&module.path).is_some_and(|file| identity(&module.path) == Some(*file))
    }

    /// Looks up those of the addresses that are new. Each lies within the instruction that is meant.
    pub(super) fn learn(&mut self, modules: &Modules, addresses: &BTreeSet<u64>) {
        let loaded: Vec<_> = modules.iter().map(|module| (module.path.clone(), module.bias)).collect();
        if self.loaded != loaded || self.known.len() > MAX_REMEMBERED {
            self.known.clear();
            self.loaded = loaded;
        }
        let new: Vec<u64> =
            addresses.iter().copied().filter(|address| !self.known.contains_key(address)).collect();
        if new.is_empty() {
            return;
        }
        let mut whole_names = whole_names(modules, &new);
        for address in new {
            let frames = self.look_up(modules.at(address), address, whole_names.remove(&address));
            self.known.insert(address, frames);
        }
    }

    /// Gives back the memory that it took to read debug information.
    pub(super) fn give_memory_back(&self) {
        backtrace::clear_symbol_cache();
        trim_memory();
    }

    /// The functions at the address, innermost first: those that the compiler has put into others, too.
    pub(super) fn frames(&self, address: u64) -> &[Frame] {
        self.known.get(&address).map_or(&[], |frames| frames)
    }

    fn look_up(&self, module: Option<&Module>, address: u64, whole_name: Option<String>) -> Arc<[Frame]> {
        let library: Arc<str> =
            module.map_or("unknown code", |module| module.path.rsplit('/').next().unwrap_or_default()).into();
        let mut frames = Vec::new();
        if module.is_some_and(|module| self.unchanged(module)) {
            // It takes a return address, and subtracts one.
            backtrace::resolve((address + 1) as *mut std::ffi::c_void, |symbol| {
                let Some(name) = symbol.name() else { return };
                let name = format!("{name:#}");
                let file = symbol.filename().map(|path| Arc::from(short_path(&path.to_string_lossy())));
                frames.push(match (file, symbol.lineno()) {
                    (Some(file), Some(line)) => {
                        Frame { function: without_parameters(&name).into(), file, line: Some(line) }
                    }
                    _ => Frame { function: name.into(), file: Arc::clone(&library), line: None },
                });
            });
        }
        match (frames.last_mut(), whole_name) {
            (Some(outermost), Some(name)) => outermost.function = name.into(),
            (None, Some(name)) => frames.push(Frame { function: name.into(), file: library, line: None }),
            (None, None) => {
                let offset = module.map_or(address, |module| address.wrapping_sub(module.bias));
                frames.push(Frame { function: format!("{offset:#x}").into(), file: library, line: None });
            }
            (Some(_), None) => {}
        }
        frames.into()
    }
}

fn is_program(module: &Module) -> bool {
    read_link("/proc/self/exe").is_ok_and(|program| program.as_os_str() == module.path.as_str())
}

/// The names from the program's own symbol table, which has all functions with their paths. The file is the
/// one that runs, even if another one has taken its name.
fn whole_names(modules: &Modules, addresses: &[u64]) -> HashMap<u64, String> {
    let mut names = HashMap::new();
    let Some(program) = modules.iter().find(|module| is_program(module)) else { return names };
    let Ok(file) = File::open("/proc/self/exe") else { return names };
    let cache = ReadCache::new(file);
    let Ok(file) = ElfFile64::<NativeEndian, _>::parse(&cache) else { return names };
    let endian = NativeEndian;
    let symbols = file.elf_symbol_table();
    for symbol in symbols.iter().filter(|symbol| symbol.st_type() == elf::STT_FUNC) {
        let start = program.bias.wrapping_add(symbol.st_value(endian));
        let end = start.saturating_add(symbol.st_size(endian));
        let within = addresses.partition_point(|address| *address < start)
            ..addresses.partition_point(|address| *address < end);
        let Some(addresses @ [_, ..]) = addresses.get(within) else { continue };
        if let Ok(name) = symbols.symbol_name(endian, symbol) {
            let name = format!("{:#}", SymbolName::new(name));
            names.extend(addresses.iter().map(|address| (*address, name.clone())));
        }
    }
    names
}

/// Without what is the same for all files of a compiler, or of the crates of a registry.
fn short_path(path: &str) -> &str {
    let after = |mark: &str, parts: usize| {
        let (_, rest) = path.split_once(mark)?;
        rest.splitn(parts + 1, '/').nth(parts)
    };
    if path.starts_with("/rustc/") {
        return after("/rustc/", 1).unwrap_or(path);
    }
    if let Some(rest) = after("/registry/src/", 1) {
        return rest;
    }
    path
}

/// A name from the debug information without its type parameters, which may be longer than all the rest.
fn without_parameters(name: &str) -> &str {
    match name.find('<') {
        Some(0) | None => name,
        Some(at) => &name[..at],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_shortened_to_what_tells_something() {
        for (path, short) in [
            (
                "/rustc/59807616e1fa2540724bfbac14d7976d7e4a3860/library/std/src/rt.rs",
                "library/std/src/rt.rs",
            ),
            (
                "/home/x/.cargo/registry/src/index-1949cf8c6b5b557f/libc-0.2.1/src/lib.rs",
                "libc-0.2.1/src/lib.rs",
            ),
            ("/build/nodepool/src/lib.rs", "/build/nodepool/src/lib.rs"),
        ] {
            assert_eq!(short_path(path), short);
        }
    }

    #[test]
    fn type_parameters_are_left_out_but_not_the_type_of_a_method() {
        assert_eq!(without_parameters("catch_unwind<(), Closure<u8>>"), "catch_unwind");
        assert_eq!(without_parameters("<Mutex>::lock"), "<Mutex>::lock");
    }
}
