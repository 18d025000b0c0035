//! The way of an image to Glance: created, filled, awaited, compared; and taken away again if that fails.
//!
//! The id is ours, so that an image can be deleted also when the answer to its creation was lost, and the
//! creation be repeated.

use std::time::{Duration, Instant};

use nodepool_threads::{StopSource, activity_within};
use serde_json::{Value as Json, json};
use slog::{debug, info, warn};
use uuid::Uuid;

use super::stream::{self, Stream};
use super::{Glance, delete, description};
use crate::api::{CallContext, Error, ErrorKind, ImageUpload};
use crate::openstack::http::{Body, Repeat, Reply, Request};
use crate::openstack::identity::Good;
use crate::openstack::service::{Deleted, can_be_id};

/// How long it may take to remove what has become of an upload that failed: a caller that stops waits for it.
const UNDO_LIMIT: Duration = Duration::from_secs(5);
/// How often that is tried: Glance may not have noticed yet that nothing more comes.
const UNDO_PAUSE: Duration = Duration::from_millis(300);
/// How long a creation may still be under way whose answer was not waited for: a deletion may overtake it.
const STILL_CREATED: Duration = Duration::from_secs(3);
/// How long Glance may be silent once it has the whole file: it may still be storing it.
const STORING: Duration = Duration::from_secs(600);
/// The first pause between two looks at an image that is not active yet, and the longest.
const LOOKS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

impl Glance {
    /// Brings an image to Glance and returns its id once it is active. If that fails, nothing of it stays.
    pub(in crate::openstack) fn upload(
        &self,
        call: &CallContext,
        image: &ImageUpload,
    ) -> Result<String, Error> {
        call.stop.check()?;
        // Before anything is asked of the cloud.
        stream::open(&image.file)?;
        let url = format!("{}/images", self.service.endpoint(call)?);
        let wish = Uuid::new_v4();
        let id = self.create(call, image, &url, wish)?;
        self.fill(call, image, &id).inspect_err(|_| self.undo(call, &id, Duration::ZERO))?;
        Ok(id)
    }

    /// Creates an image without data. Returns its id, which a cloud may have chosen itself.
    fn create(&self, call: &CallContext, image: &ImageUpload, url: &str, id: Uuid) -> Result<String, Error> {
        let body = description::of(image, &self.cloud, id);
        let mut request = Request::new("POST", url).json(&body);
        let reply = self.service.identity.send(call, &mut request).inspect_err(|_| {
            if request.in_doubt {
                self.undo(call, &id.to_string(), STILL_CREATED);
            }
        })?;
        // It was created, and the answer to that was lost.
        if reply.status == 409 && self.look(call, &id.to_string()).is_ok() {
            return Ok(id.to_string());
        }
        if !reply.is_success() {
            return Err(self.service.http.refused(&request, &reply));
        }
        let created = self.service.object(&request, &reply)?;
        let given = created.get("id").and_then(Json::as_str).filter(|id| can_be_id(id));
        Ok(given.map_or_else(|| id.to_string(), str::to_owned))
    }

    fn fill(&self, call: &CallContext, image: &ImageUpload, id: &str) -> Result<(), Error> {
        let place = if self.cloud.import { "stage" } else { "file" };
        let sent = self.send(call, image, id, place)?;
        if self.cloud.import {
            self.import(call, id)?;
        }
        let active = self.await_active(call, id)?;
        // What is imported may be converted.
        if self.cloud.import { Ok(()) } else { self.compare(call, image, sent.as_deref(), &active) }
    }

    /// Sends the file, and once more with a new token if that is what is missing. Returns the SHA-512 of what was
    /// sent where there is nothing else to compare with what arrives.
    fn send(
        &self,
        call: &CallContext,
        image: &ImageUpload,
        id: &str,
        place: &str,
    ) -> Result<Option<String>, Error> {
        let url = format!("{}/images/{id}/{place}", self.service.endpoint(call)?);
        // What is imported may be converted, and is not compared.
        let digested = image.md5.is_none() && !self.cloud.import;
        let mut renewed = false;
        loop {
            let session = self.service.identity.session(call, Good::Long)?;
            let (file, size) = stream::open(&image.file)?;
            let mut stream = Stream::new(file, size, image, digested);
            let mut request = Request::new("PUT", url.clone());
            request.token = Some(session.token.clone());
            request.headers = vec![
                ("Content-Type", "application/octet-stream".to_owned()),
                ("X-OpenStack-Image-Size", size.to_string()),
            ];
            request.body = Body::Stream(&mut stream, size);
            request.repeat = Repeat::Never;
            request.patience = Some(STORING);
            let reply = self.service.http.send(call, &mut request)?;
            request.body = Body::Nothing;
            match reply.status {
                200..=299 => return Ok(stream.finish()),
                401 if !renewed => {
                    renewed = true;
                    self.service.identity.forget(&session);
                }
                401 => return Err(self.service.identity.still_refused(&request, &reply)),
                _ => return Err(self.upload_refused(&request, &reply)),
            }
        }
    }

    /// The error for a file that was refused.
    fn upload_refused(&self, request: &Request<'_>, reply: &Reply) -> Error {
        let refused = self.service.http.refused(request, reply);
        match reply.status {
            415 => {
                let advice = "is the file of the format that it is said to have?";
                Error::new(ErrorKind::Permanent, format!("{refused}; {advice}"))
            }
            // The image has gone meanwhile, which is no fault of whoever would upload it.
            404 | 410 => {
                Error::new(ErrorKind::Transient, format!("{refused}; the image was deleted meanwhile"))
            }
            _ => refused,
        }
    }

    /// Has Glance bring an image from the stage to its place.
    fn import(&self, call: &CallContext, id: &str) -> Result<(), Error> {
        let body = json!({ "method": { "name": "glance-direct" } });
        let mut request = self.service.request(call, "POST", &format!("/images/{id}/import"))?.json(&body);
        request.repeat = Repeat::Unheard;
        self.service.identity.done(call, &mut request).map(drop)
    }

    /// Waits until an image is active, and returns what Glance says of it then.
    fn await_active(&self, call: &CallContext, id: &str) -> Result<Json, Error> {
        let mut pause = LOOKS.0;
        let mut queued = 0;
        loop {
            let image = self.look(call, id).map_err(|error| match error.kind() {
                ErrorKind::NotFound => {
                    Error::new(ErrorKind::Transient, format!("{error}; the image was deleted meanwhile"))
                }
                _ => error,
            })?;
            let status = image.get("status").and_then(Json::as_str).unwrap_or_default().to_owned();
            match status.as_str() {
                "active" => return Ok(image),
                // What comes after an import that has failed differs: the image stays as it is, for instance.
                "importing" | "uploading" | "queued" if has_failed(&image) => {
                    return Err(self.not_active(call, id, &status, &image));
                }
                // An import may not have begun yet; a file that was taken is no longer queued.
                "queued" if self.cloud.import && queued < 3 => queued += 1,
                "saving" | "importing" => {}
                "uploading" if self.cloud.import => {}
                _ => return Err(self.not_active(call, id, &status, &image)),
            }
            debug!(call.log, "the image is not active yet"; "id" => id, "status" => status);
            call.stop.wait(pause)?;
            pause = pause.mul_f64(1.5).min(LOOKS.1);
        }
    }

    /// The error for an image that does not become active, with the reason if there is one to find.
    fn not_active(&self, call: &CallContext, id: &str, status: &str, image: &Json) -> Error {
        let said = image.get("message").and_then(Json::as_str).map(str::to_owned);
        let said = said.or_else(|| self.task_message(call, id)).filter(|said| !said.is_empty());
        let said = said.map_or_else(String::new, |said| format!(": {said}"));
        let message = format!(
            "{}: the image {id} did not become active, it is '{status}'{said}",
            self.service.http.whose
        );
        Error::new(ErrorKind::Transient, message)
    }

    /// What the last task of an image has to say; not every Glance tells.
    fn task_message(&self, call: &CallContext, id: &str) -> Option<String> {
        if !self.cloud.import {
            return None;
        }
        let mut request = self.service.request(call, "GET", &format!("/images/{id}/tasks")).ok()?;
        request.repeat = Repeat::Never;
        let tasks = self.service.identity.done(call, &mut request).ok()?.json()?;
        let mut messages =
            tasks.get("tasks")?.as_array()?.iter().filter_map(|task| task.get("message")?.as_str());
        messages.rfind(|message| !message.is_empty()).map(str::to_owned)
    }

    /// Compares what Glance has with what was built, or else with what was sent. The MD5 of the build tells of the
    /// whole way from there to Glance's store, and costs nothing.
    fn compare(
        &self,
        call: &CallContext,
        image: &ImageUpload,
        sha512: Option<&str>,
        active: &Json,
    ) -> Result<(), Error> {
        let text = |key: &str| active.get(key).and_then(Json::as_str);
        let hash = match text("os_hash_algo") {
            Some("sha256") => Some(("SHA-256", image.sha256.as_deref(), text("os_hash_value"))),
            Some("sha512") => Some(("SHA-512", sha512, text("os_hash_value"))),
            _ => None,
        };
        let md5 = Some(("MD5", image.md5.as_deref(), text("checksum")));
        for (what, ours, theirs) in [md5, hash].into_iter().flatten() {
            let (Some(ours), Some(theirs)) = (ours, theirs) else { continue };
            if !ours.eq_ignore_ascii_case(theirs) {
                return Err(self.damaged(
                    call,
                    image,
                    &format!("Glance has {what} {theirs}, it should be {ours}"),
                ));
            }
        }
        Ok(())
    }

    /// The error for an image that has not arrived as it was built: by the file's fault, which only another build
    /// mends, or by that of the way.
    fn damaged(&self, call: &CallContext, image: &ImageUpload, why: &str) -> Error {
        let found = image.sha256.as_ref().map(|built| (built, stream::sha256(&image.file, &call.stop)));
        match found {
            Some((_, Err(error))) => error,
            Some((built, Ok(found))) if !built.eq_ignore_ascii_case(&found) => {
                let message = format!(
                    "the image file {} is damaged: its SHA-256 is {found}, it was built with {built}; build it again",
                    image.file.display()
                );
                Error::new(ErrorKind::Permanent, message)
            }
            _ => {
                let message = format!(
                    "{}: the image {} was damaged on its way: {why}",
                    self.service.http.whose, image.name
                );
                Error::new(ErrorKind::Transient, message)
            }
        }
    }

    /// Removes what there may be of an image, which may appear within so long. With a deadline of its own and no stop:
    /// a caller that stops must not leave it behind.
    fn undo(&self, call: &CallContext, id: &str, may_appear: Duration) {
        let _doing = activity_within(UNDO_LIMIT, "removing half an image");
        let source = StopSource::new();
        let call = CallContext { stop: source.token().deadline_in(UNDO_LIMIT), log: call.log.clone() };
        let service = self.service.unpaced();
        let begun = Instant::now();
        loop {
            match delete(&service, &call, id) {
                Ok(Deleted::NotThere)
                    if begun.elapsed() < may_appear && call.stop.wait(UNDO_PAUSE).is_ok() => {}
                Ok(_) => {
                    info!(call.log, "removed what there was of the image"; "id" => id);
                    return;
                }
                Err(error) if error.kind().may_pass() && call.stop.wait(UNDO_PAUSE).is_ok() => {}
                Err(error) => {
                    warn!(call.log, "half an image may stay at the cloud"; "id" => id, "reason" => %error);
                    return;
                }
            }
        }
    }
}

/// Whether an import of the image has failed, and none is under way any more.
fn has_failed(image: &Json) -> bool {
    let stores = |key: &str| image.get(key).and_then(Json::as_str).is_some_and(|stores| !stores.is_empty());
    stores("os_glance_failed_import") && !stores("os_glance_importing_to_stores")
}
