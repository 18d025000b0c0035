//! Lists, deletions, clean-up and counting.

use super::*;

#[test]
fn the_pages_of_a_list_are_followed_and_begun_again_when_one_is_lost() {
    let server = World::default().start(|heard, _| {
        let page = |ids: &[&str], next: Json| {
            let servers: Vec<_> = ids.iter().map(|id| json!({"id": id, "status": "ACTIVE"})).collect();
            let links = json!([{"rel": "next", "href": next}]);
            let links = if next.is_null() { json!([]) } else { links };
            Some(Answer::json(200, json!({"servers": servers, "servers_links": links})))
        };
        match (heard.path.strip_prefix(LIST)?, heard.nth) {
            ("", _) => page(&["a", "b"], json!("http://inside:8774/v2.1/servers/detail?limit=2&marker=b")),
            // The first time it has just been deleted.
            ("&marker=b", 1) => {
                Some(Answer::json(400, json!({"badRequest": {"message": "marker [b] not found"}})))
            }
            ("&marker=b", _) => page(&["b", "c"], Json::Null),
            _ => None,
        }
    });
    let (_source, call) = testing::unstopped();
    let listed = provider(&server, json!({})).nodes().unwrap().list(&call).unwrap();
    let ids: Vec<_> = listed.iter().map(|instance| instance.external_id.as_str()).collect();
    assert_eq!(ids, ["a", "b", "c"]);
    assert_eq!(server.count("GET", LIST), 2);
}

#[test]
fn an_answer_that_is_no_list_does_not_mean_that_there_is_nothing() {
    let world = World::default();
    let server = world.start(|heard, _| {
        (heard.path == LIST && heard.nth == 1).then(|| Answer::json(200, json!({"message": "try again"})))
    });
    world.state().create(&json!({"name": "np1", "metadata": {}}));
    let opened = provider(&server, json!({}));
    let (_source, call) = testing::unstopped();
    let error = opened.nodes().unwrap().list(&call).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
    assert_eq!(opened.nodes().unwrap().list(&call).unwrap().len(), 1);
}

#[test]
fn only_the_projects_own_ports_and_floating_ips_are_asked_for() {
    let world = World::default();
    let server = world.start(|_, _| None);
    let opened =
        with(&server, json!({}), json!({"port-cleanup-interval": 1, "clean-floating-ips": true}), "");
    let (_source, call) = testing::unstopped();
    launch(&*opened, &call, "1").unwrap();
    opened.nodes().unwrap().clean_up(&call).unwrap();
    let lists: Vec<_> = server.heard().into_iter().filter(|heard| heard.method == "GET").collect();
    for path in ["/network/v2.0/ports?", &format!("{FLOATING}?")] {
        let of_path: Vec<_> = lists.iter().filter(|heard| heard.path.starts_with(path)).collect();
        assert!(!of_path.is_empty(), "{path}");
        assert!(of_path.iter().all(|heard| heard.path.contains("project_id=project-1")), "{of_path:#?}");
    }
}

#[test]
fn a_deletion_waits_until_the_server_is_gone_and_one_that_is_not_there_is_done() {
    let world = World::default();
    let server = world.start(|heard, world| match (heard.method.as_str(), heard.path.as_str()) {
        // It takes its time.
        ("DELETE", "/compute/v2.1/servers/server-1") => Some(Answer::empty(204)),
        ("GET", LIST) if heard.nth == 4 => {
            world.state().servers.clear();
            None
        }
        _ => None,
    });
    world.state().create(&json!({"name": "np1", "metadata": {}}));
    let opened = provider(&server, json!({}));
    let (_source, call) = testing::unstopped();
    let nodes = opened.nodes().unwrap();
    nodes.delete(&call, "server-1").unwrap();
    assert_eq!(server.count("GET", LIST), 4);
    nodes.delete(&call, "unknown").unwrap();
    assert_eq!(server.count("DELETE", &format!("{SERVERS}/unknown")), 1);
    let before = server.heard().len();
    for id in ["", "no such", "../images/i"] {
        nodes.delete(&call, id).unwrap();
    }
    assert_eq!(server.heard().len(), before);
}

#[test]
fn what_others_have_left_is_removed_at_the_second_look() {
    let world = World::default();
    let server = world.start(|_, _| None);
    let id = world.state().create(&json!({"name": "np1", "metadata": {}}));
    let port = |id: &str, owner: &str, device: &str| json!({"id": id, "device_owner": owner, "device_id": device, "fixed_ips": []});
    world.state().ports = vec![
        port("left", "compute:nova", "gone"),
        port("ownerless", "", ""),
        port("of-server", "compute:nova", &id),
        port("of-router", "network:router_interface", "r"),
    ];
    world.state().floating = vec![
        json!({"id": "nowhere", "floating_ip_address": "203.0.113.9", "port_id": null}),
        json!({"id": "used", "floating_ip_address": "203.0.113.8", "port_id": "x"}),
    ];
    let ids = |things: &[Json]| {
        things.iter().map(|thing| thing["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let (_source, call) = testing::unstopped();
    let careful = with(&server, json!({}), json!({"port-cleanup-interval": 0}), "");
    careful.nodes().unwrap().clean_up(&call).unwrap();
    careful.nodes().unwrap().clean_up(&call).unwrap();
    assert!(!server.heard().iter().any(|heard| heard.method == "DELETE"));
    let opened =
        with(&server, json!({}), json!({"port-cleanup-interval": 1, "clean-floating-ips": true}), "");
    let nodes = opened.nodes().unwrap();
    let mut all = nodes.clean_up(&call).unwrap();
    assert_eq!((ids(&world.state().floating), all.floating_ips), (vec!["used".to_owned()], 1));
    world.state().ports.push(port("new", "compute:nova", "gone"));
    let begun = Instant::now();
    while ids(&world.state().ports).contains(&"left".to_owned()) {
        assert!(begun.elapsed() < Duration::from_secs(60));
        call.stop.wait(Duration::from_millis(20)).unwrap();
        all.ports += nodes.clean_up(&call).unwrap().ports;
    }
    assert_eq!(
        (ids(&world.state().ports).as_slice(), all.ports),
        (&["of-server", "of-router", "new"].map(str::to_owned)[..], 2)
    );
}

#[test]
fn limits_are_those_of_nova_and_of_cinder_where_there_is_one() {
    let limits = |cinder: bool, status: u16| {
        let server = World::default().start(move |heard, _| match heard.path.as_str() {
            "/compute/v2.1/limits" => Some(Answer::json(
                200,
                json!({"limits": {"absolute": {"maxTotalInstances": 10, "maxTotalCores": 20, "maxTotalRAMSize": -1}}}),
            )),
            "/volume/v3/limits" => Some(Answer::json(
                status,
                json!({"limits": {"absolute": {"maxTotalVolumes": 3, "maxTotalVolumeGigabytes": -1}}}),
            )),
            _ => None,
        });
        let keys = format!(", block_storage_endpoint_override: 'http://{}/volume/v3'", server.address);
        let opened = with(&server, json!({}), json!({}), if cinder { &keys } else { "" });
        let (_source, call) = testing::unstopped();
        opened.nodes().unwrap().limits(&call).unwrap()
    };
    let nova: Resources = [("instances", 10), ("cores", 20)].into_iter().collect();
    assert_eq!(limits(false, 200), nova);
    // One that refuses us does not count.
    assert_eq!(limits(true, 403), nova);
    assert_eq!(limits(true, 200), [("instances", 10), ("cores", 20), ("volumes", 3)].into_iter().collect());
}

#[test]
fn a_label_is_ready_when_its_image_is_there_and_needs_what_its_flavor_has() {
    let server = World::default().start(|heard, _| {
        let ids = match heard.path.as_str() {
            "/image/v2/images?name=Debian%2012&status=active&limit=1000" => json!([{"id": "i"}]),
            "/image/v2/images?name=twice&status=active&limit=1000" => json!([{"id": "i"}, {"id": "j"}]),
            path if path.starts_with("/image/v2/images?") => json!([]),
            "/image/v2/images/by-id" => {
                return Some(Answer::json(200, json!({"id": "by-id", "status": "active"})));
            }
            _ => return None,
        };
        Some(Answer::json(200, json!({ "images": ids })))
    });
    let (_source, call) = testing::unstopped();
    for (image, expected) in [
        (json!({"image-name": "Debian 12"}), Ok(true)),
        (json!({"image-name": "none"}), Ok(false)),
        (json!({"image-name": "by-id"}), Ok(true)),
        (json!({}), Ok(false)),
        (json!({"image-id": "whatever"}), Ok(true)),
        (json!({"image-name": "twice"}), Err(ErrorKind::Permanent)),
    ] {
        let mut entry = json!({"name": "debian"});
        entry.as_object_mut().unwrap().extend(image.as_object().unwrap().clone());
        let opened = with(
            &server,
            json!({"min-ram": 2000, "flavor-name": null}),
            json!({"cloud-images": [entry]}),
            "",
        );
        let pools = json!({"cloud-images": [{"name": "debian"}],
            "pools": [{"name": "main", "labels": [{"name": "small", "cloud-image": "debian"}]}]});
        let nothing = |table: &Table<'_>| NodeSettings::read(table, true, &mut |_, _| {}, &mut |_, _, _| {});
        let pool = &testing::read(pools, nothing).0.pools["main"];
        let nodes = opened.nodes().unwrap();
        let ready = nodes.label_ready(&call, pool, "small").map_err(|error| error.kind());
        assert_eq!(ready, expected, "{image}");
        let needs = nodes.needs(&call, pool, "small").unwrap();
        assert_eq!(needs, [("instances", 1), ("cores", 8), ("ram", 8192)].into_iter().collect());
    }
}
