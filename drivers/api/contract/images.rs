//! The rules of the ability to store images.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::PathBuf;

use nodepool_threads::StopSource;
use uuid::Uuid;

use super::{Subject, does_not_begin, ends_promptly, fails, require, succeeds, violated};
use crate::api::{CallContext, ErrorKind, ImageUpload, Images, Progress, StoredImage};

const UPLOADERS: usize = 4;

pub(super) fn check(subject: &Subject<'_>, images: &dyn Images) {
    let source = StopSource::new();
    let suite = Suite { subject, images, call: subject.call(source.token()) };
    suite.upload_list_delete();
    suite.unknown_id();
    suite.missing_file();
    suite.ended_context();
    suite.slow_upload();
    suite.same_name_from_several_threads();
}

struct Suite<'a> {
    subject: &'a Subject<'a>,
    images: &'a dyn Images,
    call: CallContext,
}

impl Suite<'_> {
    /// An upload with a name of its own, of a new file of `size` bytes.
    fn image(&self, size: u64) -> ImageUpload {
        let name = format!("contract-{}", Uuid::new_v4());
        let file = self.subject.scratch.join(&name);
        let made = File::create(&file).and_then(|file| file.set_len(size));
        if let Err(error) = made {
            violated(&format!("(no fault of it:) the suite can write {}; {error}", file.display()));
        }
        let properties = BTreeMap::from([
            ("nodepool_build_id".to_owned(), "build-1".to_owned()),
            ("nodepool_upload_id".to_owned(), "0000000001".to_owned()),
            ("text".to_owned(), "with spaces, \"quotes\" and ünicode".to_owned()),
        ]);
        ImageUpload {
            name,
            file,
            format: self.subject.format.to_owned(),
            md5: None,
            sha256: None,
            properties,
            progress: Progress::default(),
        }
    }

    /// The images of that name.
    fn listed(&self, images: &dyn Images, name: &str) -> Vec<StoredImage> {
        let mut found = succeeds("images can be listed", images.list(&self.call));
        found.retain(|image| image.name == name);
        found
    }

    fn nothing_left(&self, images: &dyn Images, name: &str, after: &str) {
        require(self.listed(images, name).is_empty(), &format!("{after} leaves nothing at the provider"));
    }

    fn upload_list_delete(&self) {
        let image = self.image(100_000);
        let id = succeeds("an image can be uploaded", self.images.upload(&self.call, &image));
        require(!id.is_empty(), "an image's id is not empty");
        let listed = self.listed(self.images, &image.name);
        let expected =
            StoredImage { id: id.clone(), name: image.name.clone(), properties: image.properties.clone() };
        // A provider may add properties of its own.
        let kept = |found: &StoredImage| {
            found.id == expected.id
                && expected.properties.iter().all(|(key, value)| found.properties.get(key) == Some(value))
        };
        match listed.as_slice() {
            [found] if kept(found) => {}
            other => violated(&format!(
                "an uploaded image is listed once with its id and properties: expected {expected:?}, found {other:?}"
            )),
        }
        succeeds("an image can be deleted", self.images.delete(&self.call, &id));
        self.nothing_left(self.images, &image.name, "a deletion");
        succeeds("an image that was deleted counts as deleted", self.images.delete(&self.call, &id));
    }

    fn unknown_id(&self) {
        for id in [Uuid::new_v4().to_string().as_str(), "no such image", "../escape", ""] {
            let rule = format!("an unknown image '{id}' counts as deleted");
            succeeds(&rule, self.images.delete(&self.call, id));
        }
    }

    fn missing_file(&self) {
        let mut image = self.image(1);
        image.file = PathBuf::from("/nonexistent/nodepool-contract");
        let kinds = [ErrorKind::Permanent, ErrorKind::NotFound];
        fails("an upload of a missing file", &kinds, self.images.upload(&self.call, &image));
        self.nothing_left(self.images, &image.name, "an upload of a missing file");
        image.file = self.subject.scratch.to_owned();
        fails("an upload of a directory", &kinds, self.images.upload(&self.call, &image));
        self.nothing_left(self.images, &image.name, "an upload of a directory");
    }

    fn ended_context(&self) {
        let image = self.image(100);
        does_not_begin(self.subject, "an upload", |call| self.images.upload(call, &image));
        self.nothing_left(self.images, &image.name, "an upload that did not begin");
        let id = succeeds("an image can be uploaded", self.images.upload(&self.call, &image));
        does_not_begin(self.subject, "a deletion", |call| self.images.delete(call, &id));
        does_not_begin(self.subject, "a listing", |call| self.images.list(call));
        require(
            self.listed(self.images, &image.name).len() == 1,
            "a deletion that did not begin deletes nothing",
        );
        succeeds("an image can be deleted", self.images.delete(&self.call, &id));
    }

    fn slow_upload(&self) {
        let Some(slow) = self.subject.slow.images() else {
            violated("(no fault of it:) the slow provider has the abilities of the other");
        };
        let image = self.image(self.subject.slow_size);
        ends_promptly(self.subject, "an upload", |call| slow.upload(call, &image));
        self.nothing_left(slow, &image.name, "an upload that was ended");
    }

    fn same_name_from_several_threads(&self) {
        let image = self.image(100_000);
        let ids: BTreeSet<String> = std::thread::scope(|scope| {
            let upload =
                || succeeds("images can be uploaded at once", self.images.upload(&self.call, &image));
            let running: Vec<_> = (0..UPLOADERS).map(|_| scope.spawn(upload)).collect();
            let joined = running.into_iter().map(|thread| thread.join());
            // The panic of the thread has told why.
            joined.map(|id| id.unwrap_or_else(|_| violated("images can be uploaded at once"))).collect()
        });
        require(ids.len() == UPLOADERS, "uploads get distinct ids, whatever their names");
        let listed = self.listed(self.images, &image.name).into_iter().map(|image| image.id);
        require(listed.collect::<BTreeSet<_>>() == ids, "uploads of one name are images of their own");
        let mut left = UPLOADERS;
        for id in &ids {
            succeeds("an image can be deleted", self.images.delete(&self.call, id));
            left -= 1;
            require(
                self.listed(self.images, &image.name).len() == left,
                "a deletion deletes one image, not others of its name",
            );
        }
    }
}
