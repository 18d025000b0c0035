//! Servers that are slow, busy, broken, or somewhere else.

use std::time::{Duration, Instant, SystemTime};

use nodepool_threads::StopSource;
use serde_json::json;

use super::*;
use crate::api::ErrorKind;

const LIST: &str = "/image/v2/images?limit=1000";

#[test]
fn a_server_that_asks_for_patience_gets_it() {
    let soon = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(1));
    let server = Server::start(move |heard| match (heard.path.as_str(), heard.nth) {
        (LIST, 1) => Answer::Reply(429, vec![("Retry-After", "1".to_owned())], String::new()),
        (LIST, 2) => Answer::Reply(503, vec![("Retry-After", soon.clone())], String::new()),
        _ => right(heard),
    });
    let begun = Instant::now();
    assert_eq!(Fixture::new(&server, "").list().unwrap(), []);
    assert_eq!(server.count("GET", LIST), 3);
    assert!(begun.elapsed() >= Duration::from_secs(1));
}

#[test]
fn a_server_that_asks_for_too_much_patience_is_told_to_the_caller() {
    let server = Server::start(|heard| match heard.path.as_str() {
        LIST => Answer::Reply(
            429,
            vec![("Retry-After", "86400".to_owned())],
            r#"{"message": "Slow down."}"#.to_owned(),
        ),
        _ => right(heard),
    });
    let error = Fixture::new(&server, "").list().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RateLimited);
    assert_eq!(
        error.to_string(),
        format!("provider 'p' (cloud 'c'): GET {LIST}: 429 Too Many Requests: Slow down.")
    );
    // Nor does anybody wait for what comes after the call's end.
    let source = StopSource::new();
    let call = testing::call(&source.token().deadline_in(Duration::from_millis(500)));
    let begun = Instant::now();
    let kind = Fixture::new(&server, "").images().list(&call).unwrap_err().kind();
    assert!(matches!(kind, ErrorKind::RateLimited | ErrorKind::Timeout));
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_connection_that_is_cut_is_made_again() {
    let server = Server::start(|heard| match (heard.path.as_str(), heard.nth) {
        (LIST, 1) => Answer::Raw(Vec::new()),
        (LIST, 2) => Answer::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{\"images\"".to_vec()),
        (LIST, 3) => Answer::Raw(b"HTTP/1.1 200 O".to_vec()),
        _ => right(heard),
    });
    assert_eq!(Fixture::new(&server, "").list().unwrap(), []);
    assert_eq!(server.count("GET", LIST), 4);
}

#[test]
fn a_trickle_ends_at_the_deadline() {
    let server = Server::start(|heard| match heard.path.as_str() {
        LIST => Answer::Trickle,
        _ => right(heard),
    });
    let fixture = Fixture::new(&server, "");
    let source = StopSource::new();
    let call = testing::call(&source.token().deadline_in(Duration::from_secs(2)));
    let begun = Instant::now();
    assert_eq!(fixture.images().list(&call).unwrap_err().kind(), ErrorKind::Timeout);
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_server_that_says_nothing_is_left_after_the_idle_limit() {
    let server = Server::start(|heard| match (heard.path.as_str(), heard.nth) {
        (LIST, 1) => Answer::Silence,
        _ => right(heard),
    });
    assert_eq!(Fixture::new(&server, ", api_timeout: 1").list().unwrap(), []);
    assert_eq!(server.count("GET", LIST), 2);
}

#[test]
fn a_stop_ends_a_call_to_a_server_that_says_nothing() {
    let server = Server::start(|heard| match heard.path.as_str() {
        LIST => Answer::Silence,
        _ => right(heard),
    });
    let fixture = Fixture::new(&server, "");
    let source = StopSource::new();
    let call = testing::call(&source.token());
    let took = std::thread::scope(|scope| {
        let running = scope.spawn(|| fixture.images().list(&call).unwrap_err().kind());
        server.wait_for(|heard| heard.path == LIST);
        let stopped = Instant::now();
        source.stop();
        assert_eq!(running.join().unwrap(), ErrorKind::Cancelled);
        stopped.elapsed()
    });
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn a_token_goes_to_no_other_server() {
    let thief = Server::start(|_| Answer::json(200, json!({"images": []})));
    let elsewhere = format!("http://localhost:{}/x", thief.address.port());
    let server = Server::start(move |heard| match heard.path.as_str() {
        LIST => Answer::Reply(302, vec![("Location", elsewhere.clone())], String::new()),
        _ => right(heard),
    });
    let error = Fixture::new(&server, "").list().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Permanent);
    assert!(error.to_string().contains("it is redirected to http://localhost"), "{error}");
    assert!(thief.heard().is_empty());
}

#[test]
fn a_redirect_on_the_same_server_is_followed_but_not_for_ever() {
    let server = Server::start(|heard| match heard.path.as_str() {
        LIST => Answer::Reply(301, vec![("Location", "/there".to_owned())], String::new()),
        "/there" => Answer::json(200, json!({"images": []})),
        _ => right(heard),
    });
    assert_eq!(Fixture::new(&server, "").list().unwrap(), []);
    assert_eq!(server.wait_for(|heard| heard.path == "/there").header("x-auth-token"), Some("token-1"));
    let server = Server::start(|heard| match heard.path.as_str() {
        LIST => Answer::Reply(301, vec![("Location", LIST.to_owned())], String::new()),
        _ => right(heard),
    });
    let error = Fixture::new(&server, "").list().unwrap_err();
    assert!(error.to_string().contains("too many redirects"), "{error}");
}

#[test]
fn a_list_that_never_ends_is_an_error() {
    let page = |ids: std::ops::Range<usize>, next: &str| {
        let images: Vec<_> = ids.map(|id| json!({"id": format!("i{id}"), "name": "n", "k": "v"})).collect();
        Answer::json(200, json!({"images": images, "next": next}))
    };
    let to_itself = Server::start(move |heard| match heard.path.starts_with("/image/v2/images") {
        true => page(0..2, "/v2/images?marker=i1&limit=2"),
        false => right(heard),
    });
    let error = Fixture::new(&to_itself, "").list().unwrap_err();
    assert!(error.to_string().ends_with("the list of images never ends"), "{error}");
    let always_new = Server::start(move |heard| match heard.path.split_once("marker=i") {
        Some((_, marker)) => {
            let next: usize = marker.parse::<usize>().unwrap() + 1;
            page(next..next + 1, &format!("/v2/images?marker=i{next}"))
        }
        None if heard.path == LIST => page(0..1, "/v2/images?marker=i0"),
        None => right(heard),
    });
    let error = Fixture::new(&always_new, "").list().unwrap_err();
    assert!(error.to_string().ends_with("the list of images never ends"), "{error}");
}

#[test]
fn all_pages_are_read_whatever_is_before_their_path() {
    let server = Server::start(|heard| match heard.path.as_str() {
        LIST => Answer::json(
            200,
            json!({
                "images": [{"id": "a", "name": "one", "status": "active", "text": "t", "number": 5, "min_disk": 1, "stores": "s"}],
                // Without the proxy's prefix, as Glance gives it.
                "next": "/v2/images?limit=1&marker=a",
            }),
        ),
        "/image/v2/images?limit=1000&marker=a" => {
            Answer::json(200, json!({"images": [{"id": "a"}, {"id": "b"}]}))
        }
        _ => right(heard),
    });
    let images = Fixture::new(&server, "").list().unwrap();
    let shown: Vec<_> =
        images.iter().map(|image| format!("{} {} {:?}", image.id, image.name, image.properties)).collect();
    assert_eq!(shown, [r#"a one {"number": "5", "text": "t"}"#, "b  {}"]);
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let auth_url = {
        let server = Server::start(right);
        format!("http://{}/identity/v3", server.address)
    };
    let source = StopSource::new();
    let call = testing::call(&source.token().deadline_in(Duration::from_secs(2)));
    let error = Fixture::of(&auth_url, "").images().list(&call).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(
        error.to_string().contains("the server cannot be reached: cannot connect: 127.0.0.1:"),
        "{error}"
    );
}
