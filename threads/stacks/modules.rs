//! The program and the libraries that are loaded: where their code is, and their tables for unwinding.
//!
//! All of it comes from `/proc/self/maps` and from the memory itself. The dynamic linker, which knows it too,
//! takes a lock for the answer, and whoever holds that may never give it back.

use std::cell::OnceCell;
use std::fs::read_to_string;
use std::ops::Range;

use gimli::{
    BaseAddresses, EhFrame, EhFrameHdr, EndianSlice, FrameDescriptionEntry, NativeEndian, Pointer,
    UnwindSection as _,
};
use object::NativeEndian as ObjectEndian;
use object::elf::{FileHeader64, PF_X, PT_GNU_EH_FRAME, PT_LOAD, ProgramHeader64};
use object::pod::{from_bytes, slice_from_bytes};
use object::read::elf::{FileHeader as _, ProgramHeader as _};

use super::own_memory::OwnMemory;

type Reader<'a> = EndianSlice<'a, NativeEndian>;

/// The tables of one function.
pub(super) struct Function<'a> {
    pub(super) entry: FrameDescriptionEntry<Reader<'a>>,
    pub(super) frames: EhFrame<Reader<'a>>,
    pub(super) bases: BaseAddresses,
}

/// A program or library in memory.
#[derive(Debug)]
pub(super) struct Module {
    /// The file, as the kernel names it; `[vdso]` for the kernel's own.
    pub(super) path: String,
    /// What is added to the addresses in the file.
    pub(super) bias: u64,
    code: Vec<Range<u64>>,
    /// The index of the unwind tables, and the end of the segment that it is in.
    index: Option<(Range<u64>, u64)>,
    tables: OnceCell<Option<Tables>>,
}

#[derive(Debug)]
struct Tables {
    index: Vec<u8>,
    frames: Vec<u8>,
    bases: BaseAddresses,
}

/// All modules of the process at one moment.
#[derive(Debug)]
pub(super) struct Modules {
    modules: Vec<Module>,
    /// All code lies within.
    within: Range<u64>,
}

impl Modules {
    pub(super) fn load(memory: &OwnMemory) -> Self {
        let maps = read_to_string("/proc/self/maps").unwrap_or_default();
        let mut modules = Vec::new();
        // Its headers are mapped first, its code later. A file may also be mapped by someone who only reads
        // it.
        let mut headers = None;
        for line in maps.lines() {
            let mut fields = line.splitn(6, ' ');
            let (Some(range), Some(rights), Some(offset)) = (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            let path = fields.nth(2).unwrap_or_default().trim_start();
            if u64::from_str_radix(offset, 16) == Ok(0) {
                let start = range.split_once('-').and_then(|(start, _)| u64::from_str_radix(start, 16).ok());
                headers = start.map(|start| (path, start));
            }
            if rights.contains('x') && (path.starts_with('/') || path == "[vdso]") {
                let found = headers.take_if(|(of, _)| *of == path);
                modules.extend(found.and_then(|(_, start)| Module::read(memory, path, start)));
            }
        }
        let codes = || modules.iter().flat_map(|module: &Module| &module.code);
        let start = codes().map(|code| code.start).min().unwrap_or_default();
        let end = codes().map(|code| code.end).max().unwrap_or_default();
        Self { within: start..end, modules }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Module> {
        self.modules.iter()
    }

    pub(super) fn at(&self, address: u64) -> Option<&Module> {
        if !self.within.contains(&address) {
            return None;
        }
        self.modules.iter().find(|module| module.code.iter().any(|code| code.contains(&address)))
    }

    /// The function that the address is in, if it has unwind tables.
    pub(super) fn function<'a>(&'a self, memory: &OwnMemory, address: u64) -> Option<Function<'a>> {
        let module = self.at(address)?;
        let tables = module.tables.get_or_init(|| module.read_tables(memory)).as_ref()?;
        let frames = EhFrame::new(&tables.frames, NativeEndian);
        let index = EhFrameHdr::new(&tables.index, NativeEndian).parse(&tables.bases, 8).ok()?;
        let found = index.table()?.fde_for_address(&frames, &tables.bases, address, EhFrame::cie_from_offset);
        found.ok().map(|entry| Function { entry, frames, bases: tables.bases.clone() })
    }
}

impl Module {
    /// Reads the headers of the module that begins at `start`. None if it is no such thing.
    fn read(memory: &OwnMemory, path: &str, start: u64) -> Option<Self> {
        let endian = ObjectEndian;
        let header = memory.bytes(start, size_of::<FileHeader64<ObjectEndian>>())?;
        let (header, _) = from_bytes::<FileHeader64<ObjectEndian>>(&header).ok()?;
        if !header.is_supported()
            || usize::from(header.e_phentsize(endian)) != size_of::<ProgramHeader64<ObjectEndian>>()
        {
            return None;
        }
        let count = usize::from(header.e_phnum(endian));
        let at = start.checked_add(header.e_phoff(endian))?;
        let segments = memory.bytes(at, count * size_of::<ProgramHeader64<ObjectEndian>>())?;
        let (segments, _) = slice_from_bytes::<ProgramHeader64<ObjectEndian>>(&segments, count).ok()?;
        let loaded = || segments.iter().filter(|segment| segment.p_type(endian) == PT_LOAD);
        let first = loaded().find(|segment| segment.p_offset(endian) == 0)?;
        let bias = start.wrapping_sub(first.p_vaddr(endian));
        let range = |segment: &ProgramHeader64<ObjectEndian>| {
            let start = bias.wrapping_add(segment.p_vaddr(endian));
            start..start.saturating_add(segment.p_memsz(endian))
        };
        let code = loaded().filter(|segment| segment.p_flags(endian) & PF_X != 0).map(range).collect();
        let index = segments.iter().find(|segment| segment.p_type(endian) == PT_GNU_EH_FRAME).map(range);
        let index = index.and_then(|index| {
            let segment = loaded().map(range).find(|segment| segment.contains(&index.start))?;
            Some((index, segment.end))
        });
        Some(Self { path: path.to_owned(), bias, code, index, tables: OnceCell::new() })
    }

    fn read_tables(&self, memory: &OwnMemory) -> Option<Tables> {
        let (range, segment_end) = self.index.clone()?;
        let index = memory.bytes(range.start, usize::try_from(range.end - range.start).ok()?)?;
        let bases = BaseAddresses::default().set_eh_frame_hdr(range.start);
        let Pointer::Direct(start) =
            EhFrameHdr::new(&index, NativeEndian).parse(&bases, 8).ok()?.eh_frame_ptr()
        else {
            return None;
        };
        // Nothing says how long the tables are; they end by themselves.
        let length = usize::try_from(segment_end.checked_sub(start)?).ok()?;
        let frames = memory.bytes(start, length)?;
        Some(Tables { index, frames, bases: bases.set_eh_frame(start) })
    }
}
