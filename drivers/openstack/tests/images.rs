//! The way of an image to Glance, and everything that can end it.

use std::os::unix::fs::FileExt as _;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nodepool_threads::StopSource;
use serde_json::json;

use super::server::Hears;
use super::*;
use crate::api::ErrorKind;

const IMAGES: &str = "/image/v2/images";
/// The SHA-256 of ten zeros, as sha256sum has it.
const OF_TEN_ZEROS: &str = "01d448afd928065458cf670b60f5a594d735af0172c8d67f22a81680132681ca";

fn is_file(path: &str) -> bool {
    path.ends_with("/file") || path.ends_with("/stage")
}

fn deleted(server: &Server, id: &str) -> bool {
    server.count("DELETE", &format!("{IMAGES}/{id}")) > 0
}

/// The id of the first image that was created.
fn created(server: &Server) -> String {
    id_in(&server.wait_for(|heard| heard.is("POST", IMAGES)))
}

#[test]
fn an_image_is_described_as_openstacksdk_does_and_arrives_whole() {
    let server = Server::start(right);
    let fixture = Fixture::new(&server, ", disable_vendor_agent: {vm_mode: hvm}");
    let mut image = fixture.image(300_000);
    std::fs::OpenOptions::new().write(true).open(&image.file).unwrap().write_at(b"data", 200_000).unwrap();
    image.md5 = Some("ab".to_owned());
    for (key, value) in [
        ("min_disk", "10"),
        ("is_protected", "True"),
        ("hw_cpu_sockets", "2"),
        ("tags", "ci, x"),
        ("visibility", "shared"),
    ] {
        image.properties.insert(key.to_owned(), value.to_owned());
    }
    let id = fixture.upload(&image).unwrap();
    let body: Json = serde_json::from_slice(&server.wait_for(|heard| heard.is("POST", IMAGES)).body).unwrap();
    let expected = json!({
        "id": id, "name": "debian-1700000000", "disk_format": "raw", "container_format": "bare", "visibility": "shared",
        "owner_specified.openstack.md5": "ab", "owner_specified.openstack.sha256": "",
        "owner_specified.openstack.object": "images/debian-1700000000", "nodepool_build_id": "b", "vm_mode": "hvm",
        "min_disk": 10, "protected": true, "hw_cpu_sockets": "2", "tags": ["ci", "x"],
    });
    assert_eq!(body, expected);
    let put = server.wait_for(|heard| heard.method == "PUT");
    assert_eq!(put.path, format!("{IMAGES}/{id}/file"));
    assert_eq!(put.header("content-type"), Some("application/octet-stream"));
    assert_eq!(put.header("x-openstack-image-size"), Some("300000"));
    assert_eq!((put.header("expect"), put.header("transfer-encoding")), (None, None));
    assert!(put.body == std::fs::read(&image.file).unwrap());
    assert!(!deleted(&server, &id));
}

#[test]
fn a_creation_whose_answer_is_lost_is_found_again() {
    let server = Server::start(|heard| match (heard.is("POST", IMAGES), heard.nth) {
        (true, 1) => Answer::Raw(Vec::new()),
        (true, _) => Answer::Reply(409, Vec::new(), "Image ID already exists!".to_owned()),
        _ => right(heard),
    });
    let fixture = Fixture::new(&server, "");
    let id = fixture.upload(&fixture.image(10)).unwrap();
    assert_eq!(id, created(&server));
}

#[test]
fn a_creation_that_is_stopped_is_removed_when_it_appears() {
    // The deletion comes before the creation is done.
    let server = Server::start(|heard| match heard.method.as_str() {
        "POST" if heard.path == IMAGES => Answer::Silence,
        "DELETE" if heard.nth < 3 => Answer::empty(404),
        _ => right(heard),
    });
    let fixture = Fixture::new(&server, "");
    let image = fixture.image(10);
    let source = StopSource::new();
    let call = testing::call(&source.token());
    std::thread::scope(|scope| {
        let running = scope.spawn(|| fixture.images().upload(&call, &image).unwrap_err().kind());
        let id = created(&server);
        source.stop();
        assert_eq!(running.join().unwrap(), ErrorKind::Cancelled);
        assert_eq!(server.count("DELETE", &format!("{IMAGES}/{id}")), 3);
    });
}

#[test]
fn a_stop_ends_an_upload_to_a_server_that_does_not_read_and_removes_the_image() {
    let hears = |_: &str, path: &str| if is_file(path) { Hears::Only(10) } else { Hears::All };
    let script = |heard: &Heard| if is_file(&heard.path) { Answer::Silence } else { right(heard) };
    let server = Server::with(script, hears, None);
    let fixture = Fixture::new(&server, "");
    let image = fixture.image(64 << 20);
    let source = StopSource::new();
    let call = testing::call(&source.token());
    std::thread::scope(|scope| {
        let running = scope.spawn(|| fixture.images().upload(&call, &image).unwrap_err().kind());
        server.wait_for(|heard| is_file(&heard.path));
        let stopped = Instant::now();
        source.stop();
        assert_eq!(running.join().unwrap(), ErrorKind::Cancelled);
        assert!(stopped.elapsed() < Duration::from_secs(10));
    });
    assert!(deleted(&server, &created(&server)));
}

#[test]
fn a_connection_that_is_cut_in_the_middle_is_an_error_and_nothing_stays() {
    let hears = |_: &str, path: &str| if is_file(path) { Hears::Only(1 << 20) } else { Hears::All };
    let script = |heard: &Heard| if is_file(&heard.path) { Answer::Raw(Vec::new()) } else { right(heard) };
    let server = Server::with(script, hears, None);
    let fixture = Fixture::new(&server, "");
    let error = fixture.upload(&fixture.image(64 << 20)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transient);
    assert!(error.to_string().contains("the connection was lost"), "{error}");
    assert!(deleted(&server, &created(&server)));
    assert_eq!(server.heard().iter().filter(|heard| is_file(&heard.path)).count(), 1);
}

#[test]
fn a_server_that_refuses_in_the_middle_is_understood() {
    let hears = |_: &str, path: &str| if is_file(path) { Hears::Only(1 << 20) } else { Hears::All };
    let script = |heard: &Heard| match is_file(&heard.path) {
        true => Answer::Reply(
            413,
            Vec::new(),
            "<html><body>Denying attempt to upload: quota</body></html>".to_owned(),
        ),
        false => right(heard),
    };
    let server = Server::with(script, hears, None);
    let fixture = Fixture::new(&server, "");
    let error = fixture.upload(&fixture.image(64 << 20)).unwrap_err();
    let id = created(&server);
    // Whoever closes with bytes unread cuts its own answer off now and then.
    if error.kind() != ErrorKind::Transient {
        assert_eq!(error.kind(), ErrorKind::Quota);
        let expected =
            format!("PUT {IMAGES}/{id}/file: 413 Payload Too Large: Denying attempt to upload: quota");
        assert_eq!(error.to_string(), format!("provider 'p' (cloud 'c'): {expected}"));
    }
    assert!(deleted(&server, &id));
}

#[test]
fn a_server_that_answers_and_neither_reads_nor_closes_is_understood() {
    let hears = |_: &str, path: &str| if is_file(path) { Hears::Only(10) } else { Hears::All };
    let said = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 9\r\n\r\nOver here";
    let script = |heard: &Heard| match is_file(&heard.path) {
        true => Answer::SaidThenSilence(said.to_vec()),
        false => right(heard),
    };
    let server = Server::with(script, hears, None);
    let fixture = Fixture::new(&server, "");
    let error = fixture.upload(&fixture.image(64 << 20)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Permanent);
    assert!(error.to_string().ends_with("403 Forbidden: Over here"), "{error}");
}

#[test]
fn a_token_that_expires_before_the_file_is_renewed_and_the_file_sent_again() {
    let server = Server::start(|heard| match (is_file(&heard.path), heard.nth) {
        (true, 1) => Answer::json(401, json!({"error": {"message": "expired"}})),
        _ => right(heard),
    });
    let fixture = Fixture::new(&server, "");
    fixture.upload(&fixture.image(100_000)).unwrap();
    let files: Vec<_> = server.heard().into_iter().filter(|heard| is_file(&heard.path)).collect();
    let tokens: Vec<_> = files.iter().map(|heard| heard.header("x-auth-token").unwrap()).collect();
    assert_eq!(tokens, ["token-1", "token-2"]);
    assert!(files.iter().all(|heard| heard.body.len() == 100_000));
}

#[test]
fn an_image_is_awaited_until_it_is_active() {
    let server = Server::start(|heard| match (heard.method.as_str(), heard.nth) {
        ("GET", 1) if heard.path.starts_with("/image/v2/images/") => {
            Answer::json(200, json!({"status": "saving"}))
        }
        _ => right(heard),
    });
    let fixture = Fixture::new(&server, "");
    let id = fixture.upload(&fixture.image(10)).unwrap();
    assert_eq!(server.count("GET", &format!("{IMAGES}/{id}")), 2);
}

#[test]
fn an_image_that_is_not_what_was_sent_or_does_not_become_active_is_removed() {
    let digest =
        |algorithm: &str| json!({"status": "active", "os_hash_algo": algorithm, "os_hash_value": "00"});
    let (md5, sha256) = (Some("ab"), Some(OF_TEN_ZEROS));
    let damaged = "the image debian-1700000000 was damaged on its way: Glance has ";
    let cases = [
        (json!({"status": "queued"}), None, None, "did not become active, it is 'queued'".to_owned()),
        (
            json!({"status": "killed", "message": "no space"}),
            None,
            None,
            "it is 'killed': no space".to_owned(),
        ),
        (
            json!({"status": "active", "checksum": "00"}),
            md5,
            sha256,
            format!("{damaged}MD5 00, it should be ab"),
        ),
        (digest("sha256"), md5, sha256, format!("{damaged}SHA-256 00, it should be {OF_TEN_ZEROS}")),
        // Digested on the way, because the build has left nothing that Glance has, too.
        (digest("sha512"), None, sha256, format!("{damaged}SHA-512 00, it should be ")),
        (digest("sha512"), None, None, format!("{damaged}SHA-512 00, it should be ")),
    ];
    for (says, md5, sha256, expected) in cases {
        let said = says.clone();
        let server = Server::start(move |heard| match heard.method.as_str() {
            "GET" if heard.path.starts_with("/image/v2/images/") => Answer::json(200, said.clone()),
            _ => right(heard),
        });
        let fixture = Fixture::new(&server, "");
        let [md5, sha256] = [md5, sha256].map(|digest| digest.map(str::to_owned));
        let image = ImageUpload { md5, sha256, ..fixture.image(10) };
        let error = fixture.upload(&image).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Transient, "{says}");
        assert!(error.to_string().contains(&expected), "{error}");
        assert!(deleted(&server, &created(&server)));
    }
}

#[test]
fn a_file_that_is_damaged_or_becomes_shorter_leaves_nothing() {
    let server = Server::start(|heard| match heard.method.as_str() {
        "GET" if heard.path.starts_with("/image/v2/images/") => {
            Answer::json(200, json!({"status": "active", "checksum": "00"}))
        }
        _ => right(heard),
    });
    let fixture = Fixture::new(&server, "");
    let (md5, sha256) = (Some("ab".to_owned()), Some("00".to_owned()));
    let image = ImageUpload { md5, sha256, ..fixture.image(10) };
    let error = fixture.upload(&image).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Permanent);
    assert!(error.to_string().contains("is damaged: its SHA-256 is 01d448afd928"), "{error}");
    assert!(deleted(&server, &created(&server)));

    // Cut while it is sent; the server reads no further than that allows.
    let file = Arc::new(OnceLock::<std::path::PathBuf>::new());
    let of_script = Arc::clone(&file);
    let hears = move |_: &str, path: &str| {
        if is_file(path) {
            std::fs::OpenOptions::new()
                .write(true)
                .open(of_script.get().unwrap())
                .unwrap()
                .set_len(1)
                .unwrap();
        }
        Hears::All
    };
    let server = Server::with(right, hears, None);
    let fixture = Fixture::new(&server, "");
    let image = fixture.image(256 << 20);
    file.set(image.file.clone()).unwrap();
    let error = fixture.upload(&image).unwrap_err();
    assert!(error.to_string().ends_with("cannot read what is to be sent: it has become shorter"), "{error}");
    assert!(deleted(&server, &created(&server)));
}

#[test]
fn an_import_goes_by_the_stage() {
    let server = Server::start(|heard| match heard.method.as_str() {
        "POST" if heard.path.ends_with("/import") => Answer::empty(202),
        "GET" if heard.path.starts_with("/image/v2/images/") && heard.nth < 3 => {
            Answer::json(200, json!({"status": "importing", "os_glance_importing_to_stores": "local"}))
        }
        _ => right(heard),
    });
    let fixture = Fixture::new(&server, ", image_import_method: glance-direct");
    let id = fixture.upload(&fixture.image(10)).unwrap();
    let paths: Vec<_> =
        server.heard().into_iter().filter(|heard| heard.path.contains(&id)).map(|heard| heard.path).collect();
    let image = format!("{IMAGES}/{id}");
    assert_eq!(
        paths,
        [format!("{image}/stage"), format!("{image}/import"), image.clone(), image.clone(), image]
    );
}

#[test]
fn an_import_that_fails_tells_why_and_leaves_nothing() {
    let server = Server::start(|heard| match heard.method.as_str() {
        "POST" if heard.path.ends_with("/import") => Answer::empty(202),
        "GET" if heard.path.ends_with("/tasks") => Answer::json(
            200,
            json!({"tasks": [{"message": ""}, {"message": "no such format"}, {"message": ""}]}),
        ),
        "GET" if heard.path.starts_with("/image/v2/images/") => Answer::json(
            200,
            json!({"status": "importing", "os_glance_failed_import": "local", "os_glance_importing_to_stores": ""}),
        ),
        _ => right(heard),
    });
    let fixture = Fixture::new(&server, ", image_import_method: glance-direct");
    let error = fixture.upload(&fixture.image(10)).unwrap_err();
    assert!(
        error.to_string().ends_with("did not become active, it is 'importing': no such format"),
        "{error}"
    );
    assert!(deleted(&server, &created(&server)));
}

#[test]
fn what_is_refused_before_the_file_needs_no_removal() {
    for (status, kind) in [(400, ErrorKind::Permanent), (403, ErrorKind::Quota), (413, ErrorKind::Quota)] {
        let server = Server::start(move |heard| match heard.is("POST", IMAGES) {
            true => Answer::Reply(status, Vec::new(), "Quota exceeded".to_owned()),
            false => right(heard),
        });
        let fixture = Fixture::new(&server, "");
        assert_eq!(fixture.upload(&fixture.image(10)).unwrap_err().kind(), kind);
        assert!(!server.heard().iter().any(|heard| heard.method == "DELETE"));
    }
}

#[test]
fn a_deletion_is_done_when_the_image_is_not_there_and_comes_later_when_it_is_in_use() {
    let server = Server::start(|heard| match heard.path.rsplit('/').next().unwrap() {
        "gone" => Answer::empty(404),
        "used" => {
            Answer::Reply(409, Vec::new(), "Image used could not be deleted because it is in use".to_owned())
        }
        "protected" => {
            Answer::Reply(403, Vec::new(), "Image protected is protected and cannot be deleted.".to_owned())
        }
        _ => right(heard),
    });
    let fixture = Fixture::new(&server, "");
    for id in ["there", "gone", "../gone", "a/b", "a?b", "", ".", "ü"] {
        fixture.delete(id).unwrap();
    }
    let kind = |id: &str| fixture.delete(id).unwrap_err().kind();
    assert_eq!((kind("used"), kind("protected")), (ErrorKind::Transient, ErrorKind::Permanent));
    let paths: Vec<_> =
        server.heard().into_iter().filter(|heard| heard.method == "DELETE").map(|heard| heard.path).collect();
    assert_eq!(paths, ["there", "gone", "used", "protected"].map(|id| format!("{IMAGES}/{id}")));
}

#[test]
fn a_server_that_stops_reading_is_left_after_the_idle_limit_but_one_that_stores_is_not() {
    let hears = |_: &str, path: &str| if is_file(path) { Hears::Only(10) } else { Hears::All };
    let script = |heard: &Heard| if is_file(&heard.path) { Answer::Silence } else { right(heard) };
    let server = Server::with(script, hears, None);
    let fixture = Fixture::new(&server, ", api_timeout: 1");
    let error = fixture.upload(&fixture.image(64 << 20)).unwrap_err();
    assert!(error.to_string().ends_with("the connection was lost: nothing was heard for 1 s"), "{error}");
    assert!(deleted(&server, &created(&server)));

    let server = Server::start(|heard| {
        if is_file(&heard.path) {
            std::thread::park_timeout(Duration::from_secs(3));
        }
        right(heard)
    });
    let fixture = Fixture::new(&server, ", api_timeout: 1");
    fixture.upload(&fixture.image(1000)).unwrap();
}

#[test]
fn the_progress_shows_in_what_the_thread_does() {
    let hears = |_: &str, path: &str| if is_file(path) { Hears::Only(10) } else { Hears::All };
    let script = |heard: &Heard| if is_file(&heard.path) { Answer::Silence } else { right(heard) };
    let server = Server::with(script, hears, None);
    let fixture = Arc::new(Fixture::new(&server, ""));
    let image = fixture.image(300 << 20);
    let source = StopSource::new();
    let call = testing::call(&source.token());
    let (of_thread, progress) = (Arc::clone(&fixture), image.progress.clone());
    let uploading = nodepool_threads::spawn("openstack-progress", "tester", move || {
        of_thread.images().upload(&call, &image).unwrap_err().kind()
    });
    server.wait_for(|heard| is_file(&heard.path));
    let threads = nodepool_threads::threads();
    let doing = threads.iter().find(|thread| thread.name == "openstack-progress").unwrap();
    let shown = doing.activities.iter().any(|doing| {
        doing.what.starts_with("uploading debian-1700000000: ") && doing.what.ends_with(" of 300 MiB")
    });
    assert!(shown, "{:?}", doing.activities);
    let (sent, whole) = progress.bytes().unwrap();
    assert!(sent > 0 && sent < whole && whole == 300 << 20, "{sent} of {whole}");
    source.stop();
    assert_eq!(uploading.unwrap().join().unwrap(), ErrorKind::Cancelled);
}
