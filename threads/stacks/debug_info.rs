//! Files, lines, and the functions that the compiler has put into others, from the debug information of a file.
//!
//! A release has 40 MB of it, and a daemon that hangs may be short of memory. So of the sections only those are in
//! memory at the same time that one step needs: first what tells which functions and which lines of which files the
//! addresses are in, then the text of their names. Of the units only those are looked at that have one of the
//! addresses.

#[cfg(test)]
mod tests;

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ops::Range;

use gimli::{
    AttributeValue, DW_AT_abstract_origin, DW_AT_call_file, DW_AT_call_line, DW_AT_comp_dir,
    DW_AT_linkage_name, DW_AT_name, DW_AT_specification, DW_TAG_inlined_subroutine, DW_TAG_subprogram,
    DebugInfoOffset, DebuggingInformationEntry, Dwarf, DwarfSections, EndianSlice, NativeEndian, SectionId,
    Unit, UnitHeader,
};

use super::elf_file::ElfFile;

/// A function, and where in it an address is, or a call.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// The last part of the function's name, or the whole of it in the form that linkers see.
    pub(super) function: Option<String>,
    pub(super) file: Option<String>,
    pub(super) line: Option<u32>,
}

/// The places of each of the addresses of the file, innermost first; of those that have any. The addresses are sorted.
pub(super) fn places(file: &ElfFile, addresses: &[u64]) -> BTreeMap<u64, Vec<Place>> {
    let spelled: BTreeMap<u64, Vec<Spelled>> = {
        let sections = DwarfSections::load(|id| {
            let wanted = matches!(
                id,
                SectionId::DebugAbbrev
                    | SectionId::DebugAddr
                    | SectionId::DebugAranges
                    | SectionId::DebugInfo
                    | SectionId::DebugLine
                    | SectionId::DebugRanges
                    | SectionId::DebugRngLists
                    | SectionId::DebugStrOffsets
            );
            let section = if wanted { file.section(id.name()) } else { None };
            Ok::<_, Infallible>(section.unwrap_or_default())
        });
        let Ok(sections) = sections;
        let dwarf = sections.borrow(|section| EndianSlice::new(section, NativeEndian));
        DebugInfo { dwarf, headers: OnceCell::new() }.places(addresses)
    };
    let section = |id: SectionId| file.section(id.name()).unwrap_or_default();
    let strings =
        Strings { strings: section(SectionId::DebugStr), of_lines: section(SectionId::DebugLineStr) };
    let read = |places: Vec<Spelled>| places.iter().map(|place| strings.place(place)).collect();
    spelled.into_iter().map(|(address, places)| (address, read(places))).collect()
}

type Reader<'a> = EndianSlice<'a, NativeEndian>;
type Entry<'a, 'b> = DebuggingInformationEntry<'b, 'b, Reader<'a>>;
type Value<'a> = AttributeValue<Reader<'a>>;

/// So many entries may lead from one to the next until there is a name.
const MOST_STEPS: usize = 8;

/// A text, or where it is in one of the sections for texts.
#[derive(Debug, Clone)]
enum Text {
    Here(Vec<u8>),
    Strings(usize),
    OfLines(usize),
}

/// A [`Place`] whose texts have not been read yet.
#[derive(Debug, Default)]
struct Spelled {
    function: Option<Text>,
    /// Directories, from the outermost on, and the file.
    path: Vec<Text>,
    line: Option<u64>,
}

/// The number of a file in its unit, and the line.
type FileAndLine = (Option<u64>, Option<u64>);

/// A function that an address is in, and where it was called if it was put into its caller.
struct Scope {
    name: Option<Text>,
    call: FileAndLine,
}

/// The debug information without its texts.
struct DebugInfo<'a> {
    dwarf: Dwarf<Reader<'a>>,
    headers: OnceCell<Vec<UnitHeader<Reader<'a>>>>,
}

impl<'a> DebugInfo<'a> {
    fn places(&self, addresses: &[u64]) -> BTreeMap<u64, Vec<Spelled>> {
        let mut places = BTreeMap::new();
        for (offset, addresses) in self.units(addresses) {
            // A unit that cannot be read has no lines, and the others do.
            let _ = self.unit_places(offset, &addresses, &mut places);
        }
        places
    }

    /// The units that have some of the addresses, with these.
    fn units(&self, addresses: &[u64]) -> BTreeMap<DebugInfoOffset, Vec<u64>> {
        let mut units: BTreeMap<_, Vec<u64>> = BTreeMap::new();
        let mut add = |unit, range: Range<u64>| {
            let found = within(addresses, range);
            if !found.is_empty() {
                units.entry(unit).or_default().extend_from_slice(found);
            }
        };
        let mut tables = self.dwarf.debug_aranges.headers();
        let mut has_tables = false;
        while let Ok(Some(table)) = tables.next() {
            has_tables = true;
            let mut entries = table.entries();
            while let Ok(Some(entry)) = entries.next() {
                let range = entry.range();
                add(table.debug_info_offset(), range.begin..range.end);
            }
        }
        // Not all compilers write them.
        for header in if has_tables { &[] } else { self.headers() } {
            let Some(offset) = header.offset().as_debug_info_offset() else { continue };
            let Ok(unit) = self.dwarf.unit(*header) else { continue };
            let Ok(mut ranges) = self.dwarf.unit_ranges(&unit) else { continue };
            while let Ok(Some(range)) = ranges.next() {
                add(offset, range.begin..range.end);
            }
        }
        for found in units.values_mut() {
            found.sort_unstable();
            found.dedup();
        }
        units
    }

    fn headers(&self) -> &[UnitHeader<Reader<'a>>] {
        self.headers.get_or_init(|| {
            let mut units = self.dwarf.units();
            std::iter::from_fn(|| units.next().ok().flatten()).collect()
        })
    }

    fn unit_places(
        &self,
        offset: DebugInfoOffset,
        addresses: &[u64],
        places: &mut BTreeMap<u64, Vec<Spelled>>,
    ) -> gimli::Result<()> {
        let unit = self.dwarf.unit(self.dwarf.debug_info.header_from_offset(offset)?)?;
        let mut scopes = self.scopes(&unit, addresses)?;
        let lines = lines(&unit, addresses)?;
        let directory = self.directory(&unit);
        for address in addresses {
            let mut at = lines.get(address).copied().unwrap_or_default();
            let mut found = Vec::new();
            for scope in scopes.remove(address).unwrap_or_default().into_iter().rev() {
                let path = self.path(&unit, directory.as_ref(), at.0);
                found.push(Spelled { function: scope.name, path, line: at.1 });
                at = scope.call;
            }
            if found.is_empty() && at.1.is_some() {
                let path = self.path(&unit, directory.as_ref(), at.0);
                found.push(Spelled { function: None, path, line: at.1 });
            }
            if !found.is_empty() {
                places.insert(*address, found);
            }
        }
        Ok(())
    }

    /// The functions that each address is in, outermost first.
    fn scopes(&self, unit: &Unit<Reader<'a>>, addresses: &[u64]) -> gimli::Result<BTreeMap<u64, Vec<Scope>>> {
        let mut scopes: BTreeMap<u64, Vec<Scope>> = BTreeMap::new();
        let mut entries = unit.entries();
        while let Some((_, entry)) = entries.next_dfs()? {
            let inlined = entry.tag() == DW_TAG_inlined_subroutine;
            if !inlined && entry.tag() != DW_TAG_subprogram {
                continue;
            }
            let mut ranges = self.dwarf.die_ranges(unit, entry)?;
            while let Some(range) = ranges.next()? {
                for address in within(addresses, range.begin..range.end) {
                    let number = |name| {
                        entry.attr_value(name).ok().flatten().and_then(|value: Value<'_>| match value {
                            AttributeValue::FileIndex(index) => Some(index),
                            other => other.udata_value(),
                        })
                    };
                    let scopes = scopes.entry(*address).or_default();
                    // A function is in no other one.
                    if !inlined {
                        scopes.clear();
                    }
                    scopes.push(Scope {
                        name: self.name(unit, entry, MOST_STEPS),
                        call: (number(DW_AT_call_file), number(DW_AT_call_line)),
                    });
                }
            }
        }
        Ok(scopes)
    }

    /// The name of a function, which another entry may have.
    fn name(&self, unit: &Unit<Reader<'a>>, entry: &Entry<'a, '_>, steps: usize) -> Option<Text> {
        let value = |name| entry.attr_value(name).ok().flatten();
        if let Some(name) = value(DW_AT_linkage_name).or_else(|| value(DW_AT_name)) {
            return self.text(unit, name);
        }
        let steps = steps.checked_sub(1)?;
        match value(DW_AT_abstract_origin).or_else(|| value(DW_AT_specification))? {
            AttributeValue::UnitRef(offset) => self.name(unit, &unit.entry(offset).ok()?, steps),
            AttributeValue::DebugInfoRef(offset) => {
                let headers = self.headers();
                let next = headers.partition_point(|header| {
                    header.offset().as_debug_info_offset().is_some_and(|start| start <= offset)
                });
                let header = headers.get(next.checked_sub(1)?)?;
                let unit = self.dwarf.unit(*header).ok()?;
                let entry = unit.entry(offset.to_unit_offset(header)?).ok()?;
                self.name(&unit, &entry, steps)
            }
            _ => None,
        }
    }

    fn text(&self, unit: &Unit<Reader<'a>>, value: Value<'a>) -> Option<Text> {
        match value {
            AttributeValue::String(text) => Some(Text::Here(text.slice().to_vec())),
            AttributeValue::DebugStrRef(offset) => Some(Text::Strings(offset.0)),
            AttributeValue::DebugLineStrRef(offset) => Some(Text::OfLines(offset.0)),
            AttributeValue::DebugStrOffsetsIndex(index) => {
                Some(Text::Strings(self.dwarf.string_offset(unit, index).ok()?.0))
            }
            _ => None,
        }
    }

    /// The directory that the unit was compiled in.
    fn directory(&self, unit: &Unit<Reader<'a>>) -> Option<Text> {
        let mut entries = unit.entries();
        let (_, root) = entries.next_dfs().ok()??;
        self.text(unit, root.attr_value(DW_AT_comp_dir).ok()??)
    }

    fn path(&self, unit: &Unit<Reader<'a>>, directory: Option<&Text>, file: Option<u64>) -> Vec<Text> {
        let header = unit.line_program.as_ref().map(gimli::IncompleteLineProgram::header);
        let Some((header, file)) = header.and_then(|header| Some((header, header.file(file?)?))) else {
            return Vec::new();
        };
        let mut path: Vec<_> = directory.cloned().into_iter().collect();
        // The first one is the directory above.
        if file.directory_index() != 0 {
            path.extend(file.directory(header).and_then(|value| self.text(unit, value)));
        }
        path.extend(self.text(unit, file.path_name()));
        path
    }
}

/// The number of the file, and the line, of each address.
fn lines(unit: &Unit<Reader<'_>>, addresses: &[u64]) -> gimli::Result<BTreeMap<u64, FileAndLine>> {
    let mut lines = BTreeMap::new();
    let Some(program) = unit.line_program.clone() else { return Ok(lines) };
    let mut rows = program.rows();
    // A row is good until the next one, and nothing is behind the end of a sequence.
    let mut last = None;
    while let Some((_, row)) = rows.next_row()? {
        if let Some((start, file, line)) = last {
            lines.extend(
                within(addresses, start..row.address()).iter().map(|address| (*address, (Some(file), line))),
            );
        }
        let line = row.line().map(std::num::NonZeroU64::get);
        last = (!row.end_sequence()).then(|| (row.address(), row.file_index(), line));
    }
    Ok(lines)
}

/// Those of the sorted addresses that are in the range.
fn within(addresses: &[u64], range: Range<u64>) -> &[u64] {
    let start = addresses.partition_point(|address| *address < range.start);
    let end = addresses.partition_point(|address| *address < range.end);
    addresses.get(start..end).unwrap_or_default()
}

/// The sections for texts.
struct Strings {
    strings: Vec<u8>,
    of_lines: Vec<u8>,
}

impl Strings {
    fn text(&self, text: &Text) -> String {
        let bytes = match text {
            Text::Here(bytes) => bytes,
            Text::Strings(at) => self.strings.get(*at..).unwrap_or_default(),
            Text::OfLines(at) => self.of_lines.get(*at..).unwrap_or_default(),
        };
        let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(text).into_owned()
    }

    fn place(&self, Spelled { function, path, line }: &Spelled) -> Place {
        let file = path.iter().map(|part| self.text(part)).reduce(|path, part| {
            if part.starts_with('/') { part } else { format!("{}/{part}", path.trim_end_matches('/')) }
        });
        Place {
            function: function.as_ref().map(|name| self.text(name)),
            file,
            line: line.and_then(|line| u32::try_from(line).ok()).filter(|line| *line != 0),
        }
    }
}
