//! What has been written to a ZooKeeper, by whom and in which order: its transaction log.
//!
//! A test that watches sees what it is quick enough to see; the log has everything. The format is ZooKeeper's own
//! (`FileTxnLog`, records in Jute): big-endian numbers, texts and buffers with their length before them.

use std::path::Path;

/// One effect on the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Create {
        path: String,
        data: Vec<u8>,
        ephemeral: bool,
    },
    Set {
        path: String,
        data: Vec<u8>,
    },
    Delete {
        path: String,
    },
    /// The session is over, and its ephemeral znodes are gone.
    Close,
}

/// A change with the session that made it.
#[derive(Clone, Debug)]
pub struct Entry {
    pub session: i64,
    /// Milliseconds of UNIX time.
    pub time: i64,
    pub change: Change,
}

/// Reads all log files of a server's data directory. A server that runs has written all that it has answered.
pub fn read(data: &Path) -> Vec<Entry> {
    let dir = data.join("version-2");
    let entries = std::fs::read_dir(&dir).unwrap_or_else(|error| panic!("no {}: {error}", dir.display()));
    let mut logs: Vec<(u64, std::path::PathBuf)> = entries
        .map(|entry| entry.expect("list the logs").path())
        .filter_map(|path| {
            let zxid = path.file_name()?.to_str()?.strip_prefix("log.")?;
            Some((u64::from_str_radix(zxid, 16).expect("the number of a log"), path))
        })
        .collect();
    logs.sort();
    let mut all = Vec::new();
    for (_, path) in logs {
        let bytes = std::fs::read(&path).expect("read a log");
        read_log(&mut Jute(&bytes), &mut all).unwrap_or_else(|| panic!("{} is damaged", path.display()));
    }
    all
}

/// `None` when it is not understood.
fn read_log(log: &mut Jute<'_>, all: &mut Vec<Entry>) -> Option<()> {
    if log.int()? != i32::from_be_bytes(*b"ZKLG") {
        return None;
    }
    log.take(4 + 8)?;
    // The file is allocated ahead: zeros follow the last transaction.
    while log.0.len() > 12 && log.0[..12] != [0; 12] {
        log.long()?;
        let mut transaction = Jute(log.buffer()?);
        log.take(1)?;
        let session = transaction.long()?;
        transaction.take(4 + 8)?;
        let time = transaction.long()?;
        let kind = transaction.int()?;
        read_changes(kind, &mut transaction, &mut |change| all.push(Entry { session, time, change }))?;
    }
    Some(())
}

fn read_changes(kind: i32, from: &mut Jute<'_>, push: &mut dyn FnMut(Change)) -> Option<()> {
    match kind {
        // create, create2, createContainer, createTTL
        1 | 15 | 19 | 21 => {
            let (path, data) = (from.text()?, from.buffer()?.to_vec());
            for _ in 0..from.int()? {
                from.take(4)?;
                from.buffer()?;
                from.buffer()?;
            }
            push(Change::Create { path, data, ephemeral: *from.take(1)?.first()? != 0 });
        }
        // delete, deleteContainer
        2 | 20 => push(Change::Delete { path: from.text()? }),
        5 => push(Change::Set { path: from.text()?, data: from.buffer()?.to_vec() }),
        14 => {
            for _ in 0..from.int()? {
                let kind = from.int()?;
                read_changes(kind, &mut Jute(from.buffer()?), push)?;
            }
        }
        -11 => push(Change::Close),
        // What changes no tree: errors, new sessions, access lists.
        _ => {}
    }
    Some(())
}

struct Jute<'a>(&'a [u8]);

impl<'a> Jute<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn int(&mut self) -> Option<i32> {
        Some(i32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    fn long(&mut self) -> Option<i64> {
        Some(i64::from_be_bytes(self.take(8)?.try_into().ok()?))
    }

    fn buffer(&mut self) -> Option<&'a [u8]> {
        // -1 stands for none.
        let count = self.int()?.max(0);
        self.take(usize::try_from(count).ok()?)
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.buffer()?.to_vec()).ok()
    }
}
