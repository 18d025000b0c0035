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
