//! The file of the program or of a library: its debug sections and its symbols, as little at a time as can be.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::{
    TINFL_FLAG_HAS_MORE_INPUT, TINFL_FLAG_PARSE_ZLIB_HEADER, TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF,
};
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};
use object::read::elf::{ElfFile64, Sym as _};
use object::{
    CompressedFileRange, CompressionFormat, NativeEndian, Object as _, ObjectSection as _, ReadCache, elf,
};

/// As much is read at once of what is compressed.
const PIECE: usize = 64 << 10;

/// An open file. Nothing of its contents is kept.
pub(super) struct ElfFile(File);

impl ElfFile {
    pub(super) fn open(path: &Path) -> Option<Self> {
        File::open(path).ok().map(Self)
    }

    /// What was split off from this file and installed below `root`, as distributions do it: its debug information
    /// and the whole of its symbol table.
    pub(super) fn debug_file(&self, root: &Path) -> Option<Self> {
        Self::open(&self.debug_path(root)?)
    }

    pub(super) fn debug_path(&self, root: &Path) -> Option<PathBuf> {
        let cache = ReadCache::new(&self.0);
        let file = ElfFile64::<NativeEndian, _>::parse(&cache).ok()?;
        let (first, rest) = file.build_id().ok()??.split_first()?;
        let rest: String = rest.iter().map(|byte| format!("{byte:02x}")).collect();
        Some(root.join(format!(".build-id/{first:02x}/{rest}.debug")))
    }

    /// The contents of a section. None if there is none of this name, or it cannot be read.
    pub(super) fn section(&self, name: &str) -> Option<Vec<u8>> {
        let range = {
            // Keeps what it reads, so it goes before the section is read.
            let cache = ReadCache::new(&self.0);
            let file = ElfFile64::<NativeEndian, _>::parse(&cache).ok()?;
            file.section_by_name(name)?.compressed_file_range().ok()?
        };
        // What a broken file says must not take all memory.
        let length = usize::try_from(range.uncompressed_size).ok().filter(|length| *length <= MOST)?;
        let mut contents = vec![0; length];
        match range.format {
            CompressionFormat::None => self.0.read_exact_at(&mut contents, range.offset).ok()?,
            CompressionFormat::Zlib => self.inflate(&range, &mut contents)?,
            _ => return None,
        }
        Some(contents)
    }

    fn inflate(&self, range: &CompressedFileRange, contents: &mut [u8]) -> Option<()> {
        let mut state = Box::<DecompressorOxide>::default();
        let mut piece = vec![0; PIECE];
        let (mut at, mut left, mut done) = (range.offset, range.compressed_size, 0);
        loop {
            let length = PIECE.min(usize::try_from(left).unwrap_or(PIECE));
            let piece = piece.get_mut(..length)?;
            self.0.read_exact_at(piece, at).ok()?;
            let more = if left > length as u64 { TINFL_FLAG_HAS_MORE_INPUT } else { 0 };
            let flags = TINFL_FLAG_PARSE_ZLIB_HEADER | TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF | more;
            let (status, taken, given) = decompress(&mut state, piece, contents, done, flags);
            (at, left, done) = (at + taken as u64, left - taken as u64, done + given);
            match status {
                TINFLStatus::Done => return (done == contents.len()).then_some(()),
                TINFLStatus::NeedsMoreInput if taken > 0 => {}
                _ => return None,
            }
        }
    }

    /// Calls `take` for each function of the symbol table, or else of those that other modules may call, with its
    /// name, its address in the file, and its size.
    pub(super) fn functions(&self, mut take: impl FnMut(&[u8], u64, u64)) {
        let cache = ReadCache::new(&self.0);
        let Ok(file) = ElfFile64::<NativeEndian, _>::parse(&cache) else { return };
        let all = file.elf_symbol_table();
        let symbols = if all.is_empty() { file.elf_dynamic_symbol_table() } else { all };
        for symbol in
            symbols.iter().filter(|symbol| matches!(symbol.st_type(), elf::STT_FUNC | elf::STT_GNU_IFUNC))
        {
            if let Ok(name) = symbols.symbol_name(NativeEndian, symbol) {
                take(name, symbol.st_value(NativeEndian), symbol.st_size(NativeEndian));
            }
        }
    }
}

/// No section is larger.
const MOST: usize = 1 << 30;
