//! From addresses to functions, files and lines.
//!
//! Files and lines come from the debug information in the program's file, compressed or not, which takes a
//! while to read: what was found is kept, all the rest is not. Debug information of the kind that has lines
//! only knows just the last part of a function's name; the whole of it is in the symbol table.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{metadata, read_link};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use super::debug_info::{Place, places};
use super::elf_file::ElfFile;
use super::modules::{Module, Modules};
use super::thread_stack::Frame;

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
    /// Where the program was built, as its debug information has it. Empty where that says nothing of it.
    built_in: Option<String>,
}

type Identity = (u64, u64, u64, i64);

fn identity(path: &str) -> Option<Identity> {
    metadata(path).ok().map(|data| (data.dev(), data.ino(), data.len(), data.mtime()))
}

impl Symbols {
    /// To be made at the start, when the files are what was loaded.
    pub(super) fn new(modules: &Modules) -> Self {
        let files = modules
            .iter()
            .filter_map(|module| Some((module.path.clone(), identity(&module.path)?)))
            .collect();
        Self { known: HashMap::new(), loaded: Vec::new(), files, built_in: None }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// The file of a module. The program's is the one that runs, even if another one has taken its name.
    fn file(&self, module: &Module) -> Option<ElfFile> {
        if is_program(module) {
            return ElfFile::open(Path::new("/proc/self/exe"));
        }
        let unchanged =
            self.files.get(&module.path).is_some_and(|file| identity(&module.path) == Some(*file));
        unchanged.then(|| ElfFile::open(Path::new(&module.path)))?
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
        let mut by_file: BTreeMap<&str, (&Module, Vec<u64>)> = BTreeMap::new();
        for address in new {
            match modules.at(address) {
                Some(module) => by_file.entry(&module.path).or_insert((module, Vec::new())).1.push(address),
                None => _ = self.known.insert(address, [unnamed(UNKNOWN.into(), address)].into()),
            }
        }
        for (module, addresses) in by_file.into_values() {
            self.learn_from(module, &addresses);
        }
    }

    /// Looks up addresses of a module.
    fn learn_from(&mut self, module: &Module, addresses: &[u64]) {
        let library: Arc<str> = module.path.rsplit('/').next().unwrap_or_default().into();
        let mut in_file: Vec<u64> = addresses.iter().map(|at| at.wrapping_sub(module.bias)).collect();
        let own = (this_file as fn() as usize as u64).wrapping_sub(module.bias);
        let looks_for_itself = self.built_in.is_none() && is_program(module);
        if looks_for_itself {
            in_file.push(own);
        }
        in_file.sort_unstable();
        let (mut names, mut found) = (HashMap::new(), BTreeMap::new());
        if let Some(file) = self.file(module) {
            let file = file.debug_file(Path::new(DEBUG_FILES)).unwrap_or(file);
            names = whole_names(&file, &in_file);
            found = places(&file, &in_file);
        }
        if looks_for_itself {
            let file =
                found.get(&own).and_then(|places| places.last()?.file.as_deref()?.strip_suffix(file!()));
            self.built_in = Some(file.unwrap_or_default().to_owned());
        }
        let built_in = self.built_in.as_deref().unwrap_or_default();
        for address in addresses {
            let at = address.wrapping_sub(module.bias);
            let places = found.get(&at).map(Vec::as_slice).unwrap_or_default();
            let mut frames: Vec<Frame> =
                places.iter().filter_map(|place| frame(place, built_in, &library)).collect();
            match (frames.last_mut(), names.remove(&at)) {
                (Some(outermost), Some(name)) => outermost.function = name.into(),
                (None, Some(name)) => {
                    frames.push(Frame { function: name.into(), file: Arc::clone(&library), line: None })
                }
                (None, None) => frames.push(unnamed(Arc::clone(&library), at)),
                (Some(_), None) => {}
            }
            self.known.insert(*address, frames.into());
        }
    }

    /// The functions at the address, innermost first: those that the compiler has put into others, too.
    pub(super) fn frames(&self, address: u64) -> &[Frame] {
        self.known.get(&address).map_or(&[], |frames| frames)
    }
}

/// Where distributions install debug information that they have split off.
const DEBUG_FILES: &str = "/usr/lib/debug";

/// What an address is in that is in no module.
const UNKNOWN: &str = "unknown code";

/// A function of this file, to see what the debug information calls that.
#[inline(never)]
fn this_file() {}

fn frame(place: &Place, built_in: &str, library: &Arc<str>) -> Option<Frame> {
    let name = demangled(place.function.as_deref().unwrap_or("?"));
    Some(match (&place.file, place.line) {
        (Some(file), Some(line)) => Frame {
            function: without_parameters(&name).into(),
            file: short_path(file, built_in).into(),
            line: Some(line),
        },
        _ if place.function.is_none() => return None,
        _ => Frame { function: name.into(), file: Arc::clone(library), line: None },
    })
}

fn unnamed(library: Arc<str>, at: u64) -> Frame {
    Frame { function: format!("{at:#x}").into(), file: library, line: None }
}

fn demangled(name: &str) -> String {
    rustc_demangle::try_demangle(name).map_or_else(|_| name.to_owned(), |name| format!("{name:#}"))
}

fn is_program(module: &Module) -> bool {
    read_link("/proc/self/exe").is_ok_and(|program| program.as_os_str() == module.path.as_str())
}

/// The names from the symbol table, which has functions with their paths. The addresses are sorted.
fn whole_names(file: &ElfFile, addresses: &[u64]) -> HashMap<u64, String> {
    let mut names: HashMap<u64, Vec<u8>> = HashMap::new();
    // What a name of the C library begins with where it has another one.
    let score = |name: &[u8]| (name.iter().take_while(|letter| **letter == b'_').count(), name.len());
    file.functions(|name, start, size| {
        // Followed by its version, in some symbol tables.
        let name = name.split(|letter| *letter == b'@').next().unwrap_or_default();
        let end = start.saturating_add(size);
        let within = addresses.partition_point(|address| *address < start)
            ..addresses.partition_point(|address| *address < end);
        for address in addresses.get(within).unwrap_or_default() {
            if names.get(address).is_none_or(|known| score(name) < score(known)) {
                names.insert(*address, name.to_vec());
            }
        }
    });
    names.into_iter().map(|(address, name)| (address, demangled(&String::from_utf8_lossy(&name)))).collect()
}

/// A path without what is the same for all files of the program, of the compiler's libraries, or of the crates of
/// a registry. `built_in` is the folder that the program was built in, with a slash.
fn short_path<'a>(path: &'a str, built_in: &str) -> &'a str {
    let path = path.strip_prefix(built_in).unwrap_or(path);
    let after = |mark: &str, parts: usize| {
        let (_, rest) = path.split_once(mark)?;
        rest.splitn(parts + 1, '/').nth(parts)
    };
    if path.starts_with("/rustc/") {
        return after("/rustc/", 1).unwrap_or(path);
    }
    // A path of its own is relative by now, or has none of these.
    path.strip_prefix("vendor/")
        .or_else(|| after("/registry/src/", 1))
        .or_else(|| after("/vendor/", 0).filter(|_| path.starts_with('/')))
        .unwrap_or(path)
}

/// A name from the debug information without its type parameters, which may be longer than all the rest.
fn without_parameters(name: &str) -> &str {
    match name.find('<') {
        Some(0) | None => name,
        Some(at) => name[..at].trim_end_matches("::"),
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
            ("/build/nodepool/src/lib.rs", "src/lib.rs"),
            ("/build/nodepool/vendor/libc/src/lib.rs", "libc/src/lib.rs"),
            ("/elsewhere/vendor/libc/src/vendor/lib.rs", "libc/src/vendor/lib.rs"),
            ("/build/nodepool-2/src/lib.rs", "/build/nodepool-2/src/lib.rs"),
        ] {
            assert_eq!(short_path(path, "/build/nodepool/"), short);
        }
        assert_eq!(short_path("/build/src/lib.rs", ""), "/build/src/lib.rs", "where that is not known");
    }

    #[test]
    fn type_parameters_are_left_out_but_not_the_type_of_a_method() {
        assert_eq!(without_parameters("catch_unwind<(), Closure<u8>>"), "catch_unwind");
        assert_eq!(without_parameters("catch_unwind::<i32, fn()>"), "catch_unwind");
        assert_eq!(without_parameters("<Mutex>::lock"), "<Mutex>::lock");
    }
}
