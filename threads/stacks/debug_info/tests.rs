use std::fs::{read, remove_file};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;
use crate::stacks::modules::Modules;
use crate::stacks::own_memory::OwnMemory;

#[inline(always)]
fn put_into_its_caller(number: u64) -> u64 {
    std::hint::black_box(number) + 1
}

/// The line of the call.
const CALL: u32 = line!() + 3;
#[inline(never)]
fn calls_it(number: u64) -> u64 {
    put_into_its_caller(number)
}

/// All places in the first bytes of `calls_it`, as the file knows them.
fn found(file: &Path) -> BTreeMap<u64, Vec<Place>> {
    let start = calls_it as fn(u64) -> u64 as usize as u64;
    let modules = Modules::load(&OwnMemory::open().unwrap());
    let bias = modules.at(start).unwrap().bias;
    let addresses: Vec<_> = (start - bias..start - bias + 64).collect();
    places(&ElfFile::open(file).unwrap(), &addresses)
}

#[test]
fn a_function_that_was_put_into_another_one_is_found_in_it_where_it_is_called() {
    let found = found(Path::new("/proc/self/exe"));
    let in_both = found
        .values()
        .find(|places| places.iter().any(|place| place.function.as_deref() == Some("put_into_its_caller")));
    let [.., inner, outer] = in_both.unwrap().as_slice() else { panic!("{found:?}") };
    for (place, function) in [(inner, "put_into_its_caller"), (outer, "calls_it")] {
        assert_eq!(place.function.as_deref(), Some(function));
        assert!(place.file.as_ref().unwrap().ends_with(file!()), "{place:?}");
    }
    assert_eq!(outer.line, Some(CALL));
    assert!(inner.line.unwrap() < CALL, "{inner:?}");
}

/// A copy of this program that `objcopy` has made.
fn copy(name: &str, options: &[&str]) -> PathBuf {
    let copy = std::env::temp_dir().join(format!("debug-info-{}-{name}", std::process::id()));
    let program = std::env::current_exe().unwrap();
    let made = Command::new("objcopy").args(options).args([&program, &copy]).status().unwrap();
    assert!(made.success(), "binutils has it, without which nothing is linked");
    copy
}

#[test]
fn compressed_debug_information_says_the_same() {
    let compressed = copy("compressed", &["--compress-debug-sections=zlib"]);
    let broken = copy("broken", &["--compress-debug-sections=zlib"]);
    let plain = found(Path::new("/proc/self/exe"));
    assert!(!plain.is_empty());
    assert_eq!(found(&compressed), plain);
    let section = ElfFile::open(&compressed).unwrap().section(".debug_line").unwrap();
    assert_eq!(Some(section), ElfFile::open(Path::new("/proc/self/exe")).unwrap().section(".debug_line"));

    // What cannot be read is left out.
    let whole = read(&broken).unwrap();
    std::fs::write(&broken, &whole[..whole.len() / 2]).unwrap();
    assert_eq!(ElfFile::open(&broken).unwrap().section(".debug_line"), None);
    assert_eq!(found(&broken), BTreeMap::new());
    for file in [compressed, broken] {
        remove_file(file).unwrap();
    }
}

#[test]
fn a_program_without_tables_of_addresses_is_searched_unit_by_unit() {
    let without = copy("without", &["--remove-section=.debug_aranges"]);
    assert_eq!(found(&without), found(Path::new("/proc/self/exe")));
    remove_file(without).unwrap();
}

#[test]
fn a_program_without_debug_information_has_no_places_but_names() {
    let stripped = copy("stripped", &["--strip-debug"]);
    assert_eq!(found(&stripped), BTreeMap::new());
    let mut names = 0;
    ElfFile::open(&stripped).unwrap().functions(|_, _, _| names += 1);
    assert!(names > 100, "{names}");
    remove_file(stripped).unwrap();
}

#[test]
fn debug_information_that_was_split_off_is_found_by_the_build_id() {
    let stripped = copy("split", &["--strip-all"]);
    let debug = copy("split-off", &["--only-keep-debug"]);
    let root = std::env::temp_dir().join(format!("debug-info-{}-root", std::process::id()));
    let file = ElfFile::open(&stripped).unwrap();
    assert!(file.debug_file(&root).is_none(), "it is not installed");
    let installed = file.debug_path(&root).expect("linkers write a build id");
    std::fs::create_dir_all(installed.parent().unwrap()).unwrap();
    std::fs::rename(debug, &installed).unwrap();
    assert!(file.debug_file(&root).is_some());
    assert_eq!(found(&installed), found(Path::new("/proc/self/exe")));
    std::fs::remove_dir_all(root).unwrap();
    remove_file(stripped).unwrap();
}
