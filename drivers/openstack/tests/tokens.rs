//! Tokens: fetched once, renewed once, and not shown.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use super::*;
use crate::api::ErrorKind;

const TOKENS: &str = "/identity/v3/auth/tokens";
const LIST: &str = "/image/v2/images?limit=1000";

#[test]
fn one_thread_renews_a_token_for_all() {
    let server = Server::start(|heard| match heard.path.as_str() {
        LIST if heard.header("x-auth-token") == Some("token-1") => {
            Answer::json(401, json!({"error": {"message": "The token has been revoked."}}))
        }
        _ => right(heard),
    });
    let fixture = Fixture::new(&server, "");
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| fixture.list())).collect();
        for thread in threads {
            assert_eq!(thread.join().unwrap().unwrap(), []);
        }
    });
    assert_eq!(server.count("POST", TOKENS), 2);
}

#[test]
fn a_token_is_renewed_before_it_expires() {
    let server = Server::start(|heard| match heard.path.as_str() {
        // Over at once.
        TOKENS if heard.nth == 1 => token("short", &catalog(heard.header("host").unwrap()), 0),
        _ => right(heard),
    });
    let fixture = Fixture::new(&server, "");
    fixture.list().unwrap();
    fixture.list().unwrap();
    assert_eq!(server.count("POST", TOKENS), 2);
    let used = server.heard().into_iter().filter(|heard| heard.path == LIST);
    assert!(used.into_iter().all(|heard| heard.header("x-auth-token") == Some("token-2")));
}

#[test]
fn a_service_that_refuses_every_token_is_an_error_after_one_renewal() {
    let server = Server::start(|heard| match heard.path.as_str() {
        LIST => {
            Answer::Reply(401, Vec::new(), format!("I do not like {}", heard.header("x-auth-token").unwrap()))
        }
        _ => right(heard),
    });
    let error = Fixture::new(&server, "").list().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Permanent);
    assert!(
        error.to_string().contains("401 Unauthorized: I do not like (secret); it refuses a new token"),
        "{error}"
    );
    assert_eq!((server.count("POST", TOKENS), server.count("GET", LIST)), (2, 2));
}

#[test]
fn wrong_credentials_are_named_without_the_password() {
    let server = Server::start(|heard| match heard.path.as_str() {
        TOKENS => Answer::json(401, json!({"error": {"code": 401, "message": "Who are you?"}})),
        _ => right(heard),
    });
    let error = Fixture::new(&server, "").list().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Permanent);
    assert_eq!(
        error.to_string(),
        "provider 'p' (cloud 'c'): POST /identity/v3/auth/tokens: 401 Unauthorized: Who are you?; Keystone refuses the \
         user u; see 'auth' of the cloud 'c' in clouds.yaml and secure.yaml"
    );
}

#[test]
fn a_keystone_without_version_is_asked_which_it_has() {
    let asked = AtomicUsize::new(0);
    let server = Server::start(move |heard| match heard.path.as_str() {
        "/identity/" => {
            asked.fetch_add(1, Ordering::Relaxed);
            let href = format!("http://{}/identity/v3/", heard.header("host").unwrap());
            Answer::json(
                300,
                json!({"versions": {"values": [{"id": "v3.14", "links": [{"rel": "self", "href": href}]}]}}),
            )
        }
        _ => right(heard),
    });
    for auth_url in ["identity", "identity/", "identity/v2.0"] {
        Fixture::of(&format!("http://{}/{auth_url}", server.address), "").list().unwrap();
    }
    assert_eq!(server.count("POST", TOKENS), 3);
    // One that tells nothing is believed to have it.
    let server = Server::start(right);
    Fixture::of(&format!("http://{}/identity", server.address), "").list().unwrap();
}

#[test]
fn a_region_or_a_service_that_is_not_there_is_told_with_what_there_is() {
    let server = Server::start(right);
    for (keys, expected) in [
        (
            ", region_name: two",
            "provider 'p' (cloud 'c'): the service 'image' is not in the region 'two', only in: one",
        ),
        (
            ", image_interface: admin",
            "provider 'p' (cloud 'c'): the service 'image' has no interface 'admin' there, only: public",
        ),
        (", image_service_type: x", "provider 'p' (cloud 'c'): the catalog has no service 'x', only: image"),
    ] {
        let error = Fixture::new(&server, keys).list().unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Permanent, expected));
    }
}

#[test]
fn an_endpoint_of_the_configuration_needs_no_catalog() {
    let server = Server::start(|heard| match heard.path.as_str() {
        TOKENS => token("t", &json!([]), 3600),
        _ => right(heard),
    });
    let keys = format!(", image_endpoint_override: 'http://{}/image/v2'", server.address);
    assert_eq!(Fixture::new(&server, &keys).list().unwrap(), []);
    assert_eq!(server.count("GET", "/image/"), 0);
}
