//! The way of a node to the cloud, and everything that can end it.

use super::*;

#[test]
fn a_server_is_described_as_openstacksdk_does() {
    let world = World::default();
    let server = world.start(|_, _| None);
    let label = json!({
        "key-name": "key", "userdata": "#cloud-config\n", "boot-from-volume": true, "volume-size": 20, "networks": ["net-lan"],
        "instance-properties": {"a": 1, "nodepool_node_id": "no"}, "dynamic-instance-properties": {"t": "{request.tenant_name}"},
    });
    let section = json!({"cloud-images": [{"name": "debian", "image-id": "i", "config-drive": true}],
        "pools": [{"name": "main", "security-groups": ["web"]}]});
    let (_source, call) = testing::unstopped();
    let node = NodeSpec { zone: Some("z".to_owned()), ..spec("7") };
    let opened = with(&server, label, section, "");
    let launched = opened.nodes().unwrap().handler(request()).launch(&call, &node, &mut |_| {}).unwrap();
    let heard = server.wait_for(|heard| heard.is("POST", SERVERS));
    assert_eq!(heard.header("openstack-api-version"), Some("compute 2.47"));
    let body: Json = serde_json::from_slice(&heard.body).unwrap();
    let volume = json!({"boot_index": "0", "delete_on_termination": true, "destination_type": "volume", "source_type": "image",
        "uuid": "i", "volume_size": "20"});
    let expected = json!({"server": {
        "name": "np7", "flavorRef": "f1", "imageRef": "", "min_count": 1, "max_count": 1, "availability_zone": "z", "key_name": "key",
        "user_data": "I2Nsb3VkLWNvbmZpZwo=", "config_drive": true, "security_groups": [{"name": "web"}],
        "networks": [{"uuid": "net-lan"}], "block_device_mapping_v2": [volume],
        "metadata": {"groups": "p,debian,small", "a": "1", "t": "acme", "nodepool_node_id": "7"},
    }});
    assert_eq!(body, expected);
    let expected = LaunchedNode {
        external_id: "server-1".to_owned(),
        interface_ip: "203.0.113.2".to_owned(),
        public_ipv4: Some("203.0.113.2".to_owned()),
        private_ipv4: Some("10.0.0.1".to_owned()),
        host_id: Some("host".to_owned()),
        cloud: Some("c".to_owned()),
        az: Some("zone".to_owned()),
        resources: Some(
            [("instances", 1), ("cores", 1), ("ram", 1024), ("volumes", 1), ("volume-gb", 20)]
                .into_iter()
                .collect(),
        ),
        ..LaunchedNode::default()
    };
    assert_eq!(launched, expected);
}

#[test]
fn threads_that_wait_share_one_list_a_second() {
    let world = World::default();
    let server = world.start(|_, _| None);
    let opened = provider(&server, json!({"instance-properties": {"after": 2}}));
    let (_source, call) = testing::unstopped();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for id in 0..30 {
            let (opened, call) = (&opened, &call);
            scope.spawn(move || {
                let launched = launch(&**opened, call, &id.to_string()).unwrap();
                opened.nodes().unwrap().delete(call, &launched.external_id).unwrap();
            });
        }
    });
    // They are at least a second apart, however slow this machine is.
    let most = begun.elapsed().as_secs() + 1;
    for path in [LIST, &format!("{FLOATING}?project_id=project-1&limit=1000")] {
        let lists = u64::try_from(server.count("GET", path)).unwrap();
        assert!((1..=most).contains(&lists), "{lists} of {path} in {most} s");
    }
    for path in
        ["/compute/v2.1/", "/compute/v2.1/flavors/detail?limit=1000", "/network/v2.0/networks?limit=1000"]
    {
        assert_eq!(server.count("GET", path), 1, "{path}");
    }
    assert!(world.state().servers.is_empty() && world.state().floating.is_empty());
}

#[test]
fn refusals_say_what_is_to_be_done() {
    for (status, text, expected) in [
        (403, "Quota exceeded for cores: Requested 1, but already used 20 of 20 cores", ErrorKind::Quota),
        (403, "Maximum number of ports exceeded", ErrorKind::Quota),
        (413, "Quota exceeded", ErrorKind::Quota),
        (403, "Policy doesn't allow it", ErrorKind::Permanent),
        (400, "Invalid key_name provided.", ErrorKind::Permanent),
        (409, "Multiple possible networks found", ErrorKind::Transient),
        (500, "Unexpected API Error.", ErrorKind::Transient),
    ] {
        let world = World::default();
        let server = world.start(move |heard, _| {
            let body = json!({"badRequest": {"message": text}});
            heard.is("POST", SERVERS).then(|| Answer::json(status, body))
        });
        let error = launch_with(&world, &server, json!({})).unwrap_err();
        assert_eq!(error.kind(), expected, "{error}");
        assert!(error.to_string().contains(text), "{error}");
    }
}

#[test]
fn a_server_in_error_is_deleted_and_its_fault_told() {
    for (fault, expected) in [
        ("No valid host was found.", ErrorKind::Transient),
        ("Requested volume exceeds allowed gigabytes quota.", ErrorKind::Quota),
    ] {
        let world = World::default();
        let server = world.start(|_, _| None);
        let error = launch_with(&world, &server, json!({"after": 1, "fault": fault})).unwrap_err();
        assert_eq!(error.kind(), expected, "{error}");
        assert!(error.to_string().ends_with(&format!("it is ERROR (spawning): {fault}")), "{error}");
        assert_eq!(server.count("DELETE", &format!("{SERVERS}/server-1")), 1);
    }
}

#[test]
fn a_stop_ends_a_launch_and_removes_its_server() {
    for stuck_at in ["POST", "GET"] {
        let world = World::default();
        let server = world.start(move |heard, world| {
            if heard.is("POST", SERVERS) && stuck_at == "POST" {
                // It is done, but nobody is told.
                world.answer(heard);
                return Some(Answer::Silence);
            }
            None
        });
        let opened = provider(&server, json!({"instance-properties": {"after": 1000}}));
        let source = StopSource::new();
        let call = testing::call(&source.token());
        std::thread::scope(|scope| {
            let running = scope.spawn(|| launch(&*opened, &call, "1").unwrap_err().kind());
            server.wait_for(
                |heard| if stuck_at == "POST" { heard.is("POST", SERVERS) } else { heard.path == LIST },
            );
            source.stop();
            assert_eq!(running.join().unwrap(), ErrorKind::Cancelled);
        });
        assert!(world.state().servers.is_empty(), "{stuck_at}");
    }
}

#[test]
fn a_server_that_cannot_be_deleted_when_its_launch_ends_is_told() {
    let world = World::default();
    let server = world.start(|heard, _| (heard.method == "DELETE").then_some(Answer::Silence));
    let opened = provider(&server, json!({"instance-properties": {"after": 1000}}));
    let source = StopSource::new();
    let call = testing::call(&source.token());
    std::thread::scope(|scope| {
        let running = scope.spawn(|| launch(&*opened, &call, "1").unwrap_err());
        server.wait_for(|heard| heard.path == LIST);
        source.stop();
        let error = running.join().unwrap();
        assert_eq!((error.kind(), error.leaves_something()), (ErrorKind::Cancelled, true));
    });
}

#[test]
fn a_server_that_is_never_active_is_removed_at_the_deadline_which_says_what_it_was() {
    let world = World::default();
    let server = world.start(|_, _| None);
    let (_source, call) = testing::unstopped();
    let opened = provider(&server, json!({"instance-properties": {"after": 1000}}));
    let call = testing::call(&call.stop.deadline_in(Duration::from_secs(5)));
    let error = launch(&*opened, &call, "1").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(error.to_string().ends_with("it is BUILD (spawning)"), "{error}");
    assert!(world.state().servers.is_empty());
}

#[test]
fn a_creation_whose_answer_is_lost_leaves_no_server() {
    let world = World::default();
    let server = world.start(|heard, world| {
        heard.is("POST", SERVERS).then(|| {
            world.answer(heard);
            Answer::Raw(Vec::new())
        })
    });
    let opened = provider(&server, json!({}));
    let (_source, call) = testing::unstopped();
    let of = |provider: &str, id: &str| json!({"name": format!("np{id}"), "metadata": {"nodepool_node_id": id, "nodepool_provider_name": provider}});
    // One that was there before, of an installation with the same names.
    let before = world.state().create(&of("p", "1"));
    opened.nodes().unwrap().list(&call).unwrap();
    // One of another node, and one of another provider.
    let others = [of("p", "2"), of("q", "1")].map(|other| world.state().create(&other));
    let mut node = spec("1");
    node.metadata.insert(metadata::PROVIDER_NAME.to_owned(), "p".to_owned());
    let handler = opened.nodes().unwrap().handler(request());
    let error = handler.launch(&call, &node, &mut |_| {}).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
    let ids: Vec<_> = world.state().servers.iter().map(|server| server["id"].clone()).collect();
    assert_eq!(json!(ids), json!([before, others[0], others[1]]));
}

#[test]
fn a_server_that_appears_only_after_an_outage_is_found() {
    // Longer than it is looked for when Nova answers.
    let outage = Duration::from_secs(5);
    let world = World::default();
    let lost = Mutex::new("creation without an answer", None);
    let server = world.start(move |heard, world| {
        let mut lost = lost.lock();
        if heard.is("POST", SERVERS) {
            *lost = Some((heard.clone(), Instant::now(), 0));
            return Some(Answer::Raw(Vec::new()));
        }
        let (creation, at, lists) = lost.as_mut().filter(|_| heard.path == LIST)?;
        if at.elapsed() < outage {
            // Not repeated below.
            return Some(Answer::json(409, json!({})));
        }
        *lists += 1;
        if *lists == 2 {
            world.answer(creation);
        }
        None
    });
    launch_with(&world, &server, json!({})).unwrap_err();
    assert_eq!(server.count("DELETE", &format!("{SERVERS}/server-1")), 1);
}

#[test]
fn a_server_that_runs_waits_for_networks_that_cannot_be_listed() {
    let world = World::default();
    let server = world.start(|heard, _| {
        (heard.path.starts_with("/network/v2.0/networks") && heard.nth <= 2)
            .then(|| Answer::json(409, json!({})))
    });
    // Nothing else asks for networks before it runs.
    let opened = with(&server, json!({}), json!({"pools": [{"name": "main"}]}), "");
    let (_source, call) = testing::unstopped();
    launch(&*opened, &call, "1").unwrap();
    assert_eq!(server.count("POST", SERVERS), 1);
}

#[test]
fn what_is_known_of_a_cloud_is_asked_again_when_it_refuses_that() {
    let world = World::default();
    let server = world.start(|heard, _| {
        let body = || serde_json::from_slice::<Json>(&heard.body).unwrap();
        match (heard.path.as_str(), heard.nth) {
            ("/compute/v2.1/flavors/detail?limit=1000", 1) => Some(Answer::json(
                200,
                json!({"flavors": [{"id": "gone", "name": "small", "ram": 1024, "vcpus": 1}]}),
            )),
            (SERVERS, _) if body()["server"]["flavorRef"] == "gone" => {
                Some(Answer::json(400, json!({"badRequest": {"message": "Flavor gone could not be found."}})))
            }
            _ => None,
        }
    });
    launch_with(&world, &server, json!({})).unwrap();
    assert_eq!(server.count("POST", SERVERS), 2);
}

#[test]
fn a_nova_that_does_not_tell_its_version_is_not_taken_for_an_old_one() {
    for (status, body) in
        [(403, "{}"), (409, "{}"), (200, "<html/>"), (200, "{}"), (200, r#"{"version": "v2.1"}"#)]
    {
        let world = World::default();
        let server = world.start(move |heard, _| {
            let once = heard.path == "/compute/v2.1/" && heard.nth == 1;
            once.then(|| Answer::Reply(status, Vec::new(), body.to_owned()))
        });
        let opened = provider(&server, json!({}));
        let (_source, call) = testing::unstopped();
        launch(&*opened, &call, "1").unwrap_err();
        launch(&*opened, &call, "1").unwrap();
        let heard = server.wait_for(|heard| heard.is("POST", SERVERS));
        assert_eq!(heard.header("openstack-api-version"), Some("compute 2.47"), "{status} {body}");
    }
}

#[test]
fn a_nova_of_old_is_spoken_to_in_its_own_way() {
    let world = World::default();
    let server = world.start(|heard, world| match heard.path.as_str() {
        "/compute/v2.1/" => Some(Answer::json(
            200,
            json!({"version": {"id": "v2.1", "min_version": "2.1", "version": "2.30"}}),
        )),
        LIST => {
            let Answer::Reply(status, headers, body) = world.answer(heard) else { return None };
            Some(Answer::Reply(status, headers, body.replace(r#"{"ram":1024,"vcpus":1}"#, r#"{"id":"f2"}"#)))
        }
        _ => None,
    });
    let opened = with(&server, json!({}), json!({"pools": [{"name": "main"}]}), "");
    let (_source, call) = testing::unstopped();
    launch(&*opened, &call, "1").unwrap();
    let heard = server.wait_for(|heard| heard.is("POST", SERVERS));
    let body: Json = serde_json::from_slice(&heard.body).unwrap();
    assert_eq!((heard.header("openstack-api-version"), body["server"].get("networks")), (None, None));
    let listed = opened.nodes().unwrap().list(&call).unwrap();
    assert_eq!(listed[0].resources, [("instances", 1), ("cores", 8), ("ram", 8192)].into_iter().collect());
}
