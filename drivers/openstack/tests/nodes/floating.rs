//! Floating IPs.

use super::*;

#[test]
fn a_floating_ip_that_cannot_be_had_ends_the_launch() {
    for (status, text, expected) in [
        (409, "Quota exceeded for resources: ['floatingip'].", ErrorKind::Transient),
        (409, "No more IP addresses available on network net-out.", ErrorKind::Transient),
        (404, "External network net-out is not reachable from subnet s.", ErrorKind::Permanent),
    ] {
        let world = World::default();
        let server = world.start(move |heard, _| {
            let body = json!({"NeutronError": {"message": text}});
            heard.is("POST", FLOATING).then(|| Answer::json(status, body))
        });
        let error = launch_with(&world, &server, json!({})).unwrap_err();
        assert_eq!(error.kind(), expected, "{error}");
    }
}

#[test]
fn a_floating_ip_whose_creation_is_not_answered_and_that_appears_late_does_not_stay() {
    let world = World::default();
    let wish = Mutex::new("what was asked for", None);
    let server = world.start(move |heard, world| {
        let mut wish = wish.lock();
        if heard.is("POST", FLOATING) {
            *wish = Some(heard.clone());
            return Some(Answer::Raw(Vec::new()));
        }
        // The list that is asked for first does not have it yet.
        if heard.path.starts_with(&format!("{FLOATING}?")) && heard.nth == 2 {
            wish.take().map(|heard| world.answer(&heard));
        }
        None
    });
    let error = launch_with(&world, &server, json!({})).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
    assert_eq!(server.heard().iter().filter(|heard| heard.method == "DELETE").count(), 2);
}

#[test]
fn a_cloud_that_does_not_list_its_networks_does_not_keep_a_server() {
    let world = World::default();
    let server = world.start(|heard, _| {
        heard.path.starts_with("/network/v2.0/networks").then(|| Answer::json(409, json!({})))
    });
    let id = world.state().create(&json!({"name": "np1", "metadata": {}}));
    let (_source, call) = testing::unstopped();
    provider(&server, json!({})).nodes().unwrap().delete(&call, &id).unwrap();
    assert!(world.state().servers.is_empty());
}

#[test]
fn a_floating_ip_leads_to_the_port_that_a_router_leads_to() {
    let world = World::default();
    let server = world.start(|heard, _| match (heard.method.as_str(), heard.path.split('?').next()?) {
        ("GET", "/network/v2.0/ports") => {
            let port = |id: &str, network: &str, address: &str, created: &str| {
                json!({"id": id, "network_id": network, "fixed_ips": [{"ip_address": address}], "created_at": created})
            };
            Some(Answer::json(200, json!({"ports": [
                port("outside", "net-out", "198.51.100.1", "2026-01-09"), port("old", "net-lan", "10.0.0.1", "2026-01-01"),
                port("new", "net-x", "10.9.0.1", "2026-01-02"), port("six", "net-x", "2001:db8::1", "2026-01-03"),
            ]})))
        }
        ("POST", FLOATING) if String::from_utf8_lossy(&heard.body).contains("\"new\"") => {
            Some(Answer::json(404, json!({"NeutronError": {"message": "not reachable"}})))
        }
        _ => None,
    });
    let launched = launch_with(&world, &server, json!({})).unwrap();
    let tried = server.heard().into_iter().filter(|heard| heard.is("POST", FLOATING));
    let ports: Vec<_> = tried
        .map(|heard| serde_json::from_slice::<Json>(&heard.body).unwrap()["floatingip"]["port_id"].clone())
        .collect();
    assert_eq!(ports, ["new", "old"]);
    assert_eq!(launched.interface_ip, "203.0.113.2");
}

#[test]
fn a_server_without_a_port_where_floating_ips_shall_lead_to_is_told() {
    let world = World::default();
    let server = world.start(|heard, _| {
        let port =
            |id: &str| json!({"id": id, "network_id": "net-x", "fixed_ips": [{"ip_address": "10.0.0.1"}]});
        let asked = heard.path.starts_with("/network/v2.0/ports?");
        asked.then(|| Answer::json(200, json!({"ports": [port("a"), port("b")]})))
    });
    let opened = with(
        &server,
        json!({}),
        json!({}),
        ", networks: [{name: lan, nat_destination: true}, {name: out, nat_source: true}]",
    );
    let (_source, call) = testing::unstopped();
    let error = launch(&*opened, &call, "1").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Permanent, "{error}");
    assert!(
        error
            .to_string()
            .contains("no port with an IPv4 address on 'lan' ('nat_destination' in clouds.yaml)"),
        "{error}"
    );
    assert!(world.state().servers.is_empty());
}

#[test]
fn where_floating_ips_are_not_wanted_nobody_asks_for_them() {
    for (section, keys) in [
        (json!({"pools": [{"name": "main", "auto-floating-ip": false}]}), ""),
        (json!({}), ", floating_ip_source: none"),
        (json!({}), ", floating_ip_source: null"),
        (json!({}), ", private: true"),
    ] {
        let world = World::default();
        let server = world.start(|_, _| None);
        let opened = with(&server, json!({}), section.clone(), keys);
        let (_source, call) = testing::unstopped();
        let launched = launch(&*opened, &call, "1").unwrap();
        assert_eq!((launched.interface_ip.as_str(), launched.public_ipv4), ("10.0.0.1", None));
        assert!(!server.heard().iter().any(|heard| heard.path.starts_with(FLOATING)), "{section} {keys}");
    }
}

/// A floating IP of the network `out` that leads nowhere.
fn idle(id: &str, address: &str) -> Json {
    json!({
        "id": id, "floating_ip_address": address, "floating_network_id": "net-out", "port_id": null,
        "port_details": null, "status": "DOWN", "revision_number": 3,
    })
}

/// A provider that says that nobody else uses its project.
fn alone(server: &Server) -> Arc<dyn Provider> {
    with(server, json!({}), json!({"clean-floating-ips": true, "port-cleanup-interval": 0}), "")
}

fn ids_of(world: &World) -> Vec<String> {
    world.state().floating.iter().map(|floating| floating["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_floating_ip_that_leads_nowhere_is_used_again_where_nobody_else_uses_the_project() {
    let world = World::default();
    let server = world.start(|_, _| None);
    let mut others =
        [idle("elsewhere", "192.0.2.7"), idle("uncounted", "203.0.113.8"), idle("used", "203.0.113.9")];
    others[0]["floating_network_id"] = json!("net-x");
    others[1]["revision_number"] = Json::Null;
    others[2]["port_id"] = json!("somebodys");
    world.state().floating = [others.as_slice(), &[idle("free", "203.0.113.77")]].concat();
    let (_source, call) = testing::unstopped();
    let opened = alone(&server);
    let launched = launch(&*opened, &call, "1").unwrap();
    assert_eq!(launched.public_ipv4.as_deref(), Some("203.0.113.77"));
    assert_eq!(server.count("POST", FLOATING), 0);
    let led = server.wait_for(|heard| heard.is("PUT", &format!("{FLOATING}/free")));
    assert_eq!(led.header("if-match"), Some("revision_number=3"));
    // It goes with the node, as one does that was made for it.
    opened.nodes().unwrap().delete(&call, &launched.external_id).unwrap();
    assert_eq!(ids_of(&world), ["elsewhere", "uncounted", "used"]);
}

#[test]
fn a_floating_ip_of_a_project_with_other_users_is_never_taken() {
    let world = World::default();
    let server = world.start(|_, _| None);
    world.state().floating = vec![idle("reserved", "203.0.113.77")];
    let (_source, call) = testing::unstopped();
    let opened = provider(&server, json!({}));
    let launched = launch(&*opened, &call, "1").unwrap();
    assert_ne!(launched.public_ipv4.as_deref(), Some("203.0.113.77"));
    opened.nodes().unwrap().delete(&call, &launched.external_id).unwrap();
    assert_eq!(ids_of(&world), ["reserved"]);
}

#[test]
fn a_floating_ip_that_another_one_takes_first_is_left_to_it() {
    let world = World::default();
    let server = world.start(|heard, world| {
        if heard.is("PUT", &format!("{FLOATING}/free")) {
            let mut state = world.state();
            state.floating[0]["port_id"] = json!("port-of-another");
            state.floating[0]["port_details"] = json!({"device_id": "another"});
            state.floating[0]["revision_number"] = json!(4);
        }
        None
    });
    world.state().floating = vec![idle("free", "203.0.113.77")];
    let (_source, call) = testing::unstopped();
    let opened = alone(&server);
    let launched = launch(&*opened, &call, "1").unwrap();
    assert_ne!(launched.public_ipv4.as_deref(), Some("203.0.113.77"));
    assert_eq!(server.count("POST", FLOATING), 1);
    opened.nodes().unwrap().delete(&call, &launched.external_id).unwrap();
    assert_eq!(ids_of(&world), ["free"]);
}

#[test]
fn a_floating_ip_that_a_launch_takes_first_is_not_cleaned_up() {
    let world = World::default();
    let server = world.start(|heard, world| {
        if heard.is("DELETE", &format!("{FLOATING}/free")) {
            world.state().floating[0]["revision_number"] = json!(4);
        }
        None
    });
    world.state().floating = vec![idle("free", "203.0.113.77"), idle("left", "203.0.113.78")];
    let (_source, call) = testing::unstopped();
    let cleaned = alone(&server).nodes().unwrap().clean_up(&call).unwrap();
    assert_eq!((cleaned.floating_ips, ids_of(&world)), (1, vec!["free".to_owned()]));
}

#[test]
fn a_floating_ip_whose_use_is_not_answered_goes_with_the_server() {
    let world = World::default();
    let server = world.start(|heard, world| {
        let led = heard.is("PUT", &format!("{FLOATING}/free"));
        led.then(|| {
            world.answer(heard);
            Answer::Raw(Vec::new())
        })
    });
    world.state().floating = vec![idle("free", "203.0.113.77")];
    let (_source, call) = testing::unstopped();
    let error = launch(&*alone(&server), &call, "1").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
    assert!(world.state().servers.is_empty() && world.state().floating.is_empty());
    assert_eq!(server.count("POST", FLOATING), 0);
}

#[test]
fn a_floating_ip_that_changes_while_its_server_goes_is_looked_at_again() {
    let world = World::default();
    let server = world.start(|heard, world| {
        if heard.method == "DELETE" && heard.path.starts_with(FLOATING) && heard.nth == 1 {
            world.state().floating[0]["revision_number"] = json!(9);
        }
        None
    });
    let (_source, call) = testing::unstopped();
    let opened = provider(&server, json!({}));
    let launched = launch(&*opened, &call, "1").unwrap();
    let id = format!("{FLOATING}/{}", ids_of(&world)[0]);
    opened.nodes().unwrap().delete(&call, &launched.external_id).unwrap();
    assert_eq!((server.count("DELETE", &id), ids_of(&world)), (2, vec![]));
}

#[test]
fn an_address_that_has_become_another_servers_does_not_go_with_the_first_one() {
    let world = World::default();
    let server = world.start(|_, _| None);
    let first = world.state().create(&json!({"name": "np1", "metadata": {}}));
    let mut moved = idle("moved", "203.0.113.77");
    moved["port_id"] = json!("port-of-another");
    moved["port_details"] = json!({"device_id": "another"});
    world.state().floating = vec![moved];
    // What Nova still says of it.
    world.state().servers[0]["addresses"]["lan"]
        .as_array_mut()
        .unwrap()
        .push(json!({"addr": "203.0.113.77", "version": 4, "OS-EXT-IPS:type": "floating"}));
    let (_source, call) = testing::unstopped();
    provider(&server, json!({})).nodes().unwrap().delete(&call, &first).unwrap();
    assert!(world.state().servers.is_empty());
    assert_eq!(ids_of(&world), ["moved"]);
}
