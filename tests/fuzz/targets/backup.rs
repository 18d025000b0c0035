//! The file of `import-image-data`: nothing but records of images gets into ZooKeeper.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use nodepool::zk::{IMAGES, RecordPath, parse_backup};

fuzz_target!(|text: &[u8]| {
    let Ok(records) = parse_backup(text) else { return };
    let by_path: BTreeMap<String, &String> =
        records.iter().map(|(record, data)| (record.path(), data)).collect();
    assert_eq!(by_path.len(), records.len());
    for path in by_path.keys() {
        let below = path.strip_prefix(IMAGES).and_then(|rest| rest.strip_prefix('/'));
        let mut names = below.expect("it is below the images").split('/');
        assert!(names.all(|name| !name.is_empty() && name != "." && name != ".." && !name.contains('\0')));
        assert_eq!(RecordPath::parse(path).map(|record| record.path()).as_ref(), Ok(path));
    }
    let written = serde_json::to_vec(&by_path).expect("texts are JSON");
    assert_eq!(parse_backup(&written), Ok(records));
});
