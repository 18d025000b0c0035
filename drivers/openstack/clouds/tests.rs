//! What openstacksdk makes of its files, as tables.

use std::fs;

use serde_json::json;

use super::*;
use crate::testing::Scratch;

/// Two directories to look into, of which the first counts.
struct World(Scratch);

impl World {
    fn new() -> Self {
        let scratch = Scratch::new();
        for directory in ["own", "system"] {
            fs::create_dir(scratch.path().join(directory)).unwrap();
        }
        Self(scratch)
    }

    fn with(self, file: &str, text: &str) -> Self {
        fs::write(self.0.path().join(file), text).unwrap();
        self
    }

    fn search(&self) -> Search {
        let directories = ["own", "system"].map(|name| self.0.path().join(name)).into();
        let home = Some(self.0.path().join("home"));
        Search { named: [None, None], directories, home, start: self.0.path().to_owned() }
    }

    fn cloud(&self, name: &str, region: Option<&str>) -> Cloud {
        self.search().resolve(name, region).unwrap().0
    }

    /// The mistakes, without the directory.
    fn mistakes(&self, name: &str, region: Option<&str>) -> Vec<String> {
        let found = self.search().resolve(name, region).map(|_| ()).unwrap_err();
        let directory = format!("{}/", self.0.path().display());
        found.iter().map(|mistake| mistake.replace(&directory, "")).collect()
    }
}

fn one(cloud: &str) -> World {
    World::new().with("own/clouds.yaml", &format!("clouds: {{c: {cloud}}}"))
}

const AUTH: &str = "auth: {auth_url: 'https://k', username: u, password: s3cret, project_name: p, \
                    user_domain_name: d, project_domain_id: e}";

#[test]
fn the_first_file_of_each_kind_counts_and_secrets_lie_over_clouds() {
    let world = World::new()
        .with("system/clouds.yaml", "clouds: {c: {auth: {auth_url: 'https://wrong'}}}")
        .with("own/clouds.yml", &format!("clouds: {{c: {{{AUTH}, region_name: one}}, d: {{}}}}"))
        .with(
            "system/secure.json",
            r#"{"clouds": {"c": {"auth": {"password": "of secure"}, "image_format": "raw"}}}"#,
        );
    let cloud = world.cloud("c", None);
    assert_eq!((cloud.auth_url.as_str(), cloud.region.as_deref()), ("https://k", Some("one")));
    assert_eq!(cloud.image_format, "raw");
    assert_eq!(cloud.credentials.request()["auth"]["identity"]["password"]["user"]["password"], "of secure");
    let named = World::new().with("named", &format!("clouds: {{c: {{{AUTH}}}}}"));
    let mut search = named.search();
    search.named[0] = Some(named.0.path().join("named"));
    assert_eq!(search.resolve("c", None).unwrap().0.auth_url, "https://k");
    assert!(search.files().contains(&named.0.path().join("system/clouds-public.json")));
}

#[test]
fn nothing_secret_shows() {
    let cloud = one(&format!("{{{AUTH}}}")).cloud("c", None);
    assert!(!format!("{cloud:?}").contains("s3cret"));
    let other = one(&format!("{{{AUTH}}}").replace("s3cret", "other")).cloud("c", None);
    assert_ne!(cloud.digest, other.digest);
    let mistakes = one("{auth: {auth_url: 5, password: [s3cret], username: u}}").mistakes("c", None);
    assert!(!format!("{mistakes:?}").contains("s3cret"));
}

#[test]
fn a_profile_lies_under_a_cloud_and_a_region_over_it() {
    let world = World::new()
        .with("own/clouds-public.yaml", "public-clouds: {vendor: {auth: {auth_url: 'https://{region_name}.k', username: v},
            image-format: vhd, regions: [one, {name: two, values: {image_format: raw, auth: {project_id: q}}}]}}")
        .with("own/clouds.yaml", &format!("clouds: {{c: {{profile: vendor, {}}}}}", AUTH.replace("auth_url: 'https://k', ", "")));
    let first = world.cloud("c", None);
    assert_eq!((first.auth_url.as_str(), first.image_format.as_str()), ("https://one.k", "vhd"));
    let two = world.cloud("c", Some("two"));
    assert_eq!((two.auth_url.as_str(), two.image_format.as_str()), ("https://two.k", "raw"));
    assert_eq!(two.credentials.request()["auth"]["scope"], json!({"project": {"id": "q"}}));
    assert_eq!(
        world.mistakes("c", Some("Two")),
        ["own/clouds.yaml: clouds.c.regions: no region 'Two' (the provider's region-name), only: one, two"]
    );
}

#[test]
fn regions_are_found_in_every_form() {
    let cases = [
        ("", None, None),
        ("", Some("x"), Some("x")),
        (", region_name: a", None, Some("a")),
        (", region_name: 'a,b'", Some("b"), Some("b")),
        (", region_name: [a, b]", Some("b"), Some("b")),
        (", regions: [{name: a}, b]", None, Some("a")),
    ];
    for (keys, wanted, expected) in cases {
        let cloud = one(&format!("{{{AUTH}{keys}}}")).cloud("c", wanted);
        assert_eq!(cloud.region.as_deref(), expected, "{keys} {wanted:?}");
    }
}

#[test]
fn keystone_is_told_who_we_are_in_every_way() {
    let url = "auth_url: 'https://k'";
    let identity = |auth: &str| {
        let cloud = one(&format!("{{{auth}}}")).cloud("c", None);
        let mut request = cloud.credentials.request();
        (request["auth"]["identity"].take(), request["auth"]["scope"].take())
    };
    let user = json!({"name": "u", "domain": {"name": "d"}, "password": "s"});
    let password = |user| json!({"methods": ["password"], "password": {"user": user}});
    let cases = [
        (
            format!("auth: {{{url}, username: u, password: s, user_domain_name: d, project_id: p}}"),
            password(user.clone()),
            json!({"project": {"id": "p"}}),
        ),
        // One domain for both, an old spelling of the project, keys beside auth.
        (
            format!("auth: {{{url}, user-name: u, domain-name: d, tenant_name: p}}, password: s"),
            password(user.clone()),
            json!({"project": {"name": "p", "domain": {"name": "d"}}}),
        ),
        (
            format!("auth_type: v3password, auth: {{{url}, user_id: i, password: 5, system_scope: all}}"),
            password(json!({"id": "i", "password": "5"})),
            json!({"system": {"all": true}}),
        ),
        (
            format!(
                "auth: {{{url}, username: u, password: s, default_domain_name: d, domain_id: x, user_domain_name: d}}"
            ),
            password(user),
            json!({"domain": {"id": "x"}}),
        ),
        (
            format!(
                "auth_type: v3applicationcredential, auth: {{{url}, application_credential_id: a, application_credential_secret: s}}"
            ),
            json!({"methods": ["application_credential"], "application_credential": {"id": "a", "secret": "s"}}),
            json!(null),
        ),
        (
            format!(
                "auth_type: v3applicationcredential, auth: {{{url}, application_credential_name: a,
                application_credential_secret: s, username: u, user_domain_id: d}}"
            ),
            json!({"methods": ["application_credential"], "application_credential":
                {"name": "a", "secret": "s", "user": {"name": "u", "domain": {"id": "d"}}}}),
            json!(null),
        ),
        (
            format!("auth_type: token, auth: {{{url}, token: t, project_id: p}}"),
            json!({"methods": ["token"], "token": {"id": "t"}}),
            json!({"project": {"id": "p"}}),
        ),
    ];
    for (auth, expected, scope) in cases {
        assert_eq!(identity(&auth), (expected, scope), "{auth}");
    }
}

#[test]
fn services_are_found_as_the_cloud_says() {
    let cloud = one(&format!(
        "{{{AUTH}, region_name: r, interface: [internalURL, public], image_interface: admin,
          image_endpoint_override: 'https://{{region_name}}.g', network_region_name: n, compute_service_type: x}}"
    ))
    .cloud("c", None);
    let image = cloud.service("image");
    assert_eq!(image.interfaces, ["admin"]);
    assert_eq!((image.endpoint.as_deref(), image.region.as_deref()), (Some("https://r.g"), Some("r")));
    let network = cloud.service("network");
    assert_eq!(network.interfaces, ["internal", "public"]);
    assert_eq!(network.region.as_deref(), Some("n"));
    assert_eq!(cloud.service("compute").service_type.as_deref(), Some("x"));
    assert_eq!(one(&format!("{{{AUTH}}}")).cloud("c", None).service("image").interfaces, ["public"]);
}

#[test]
fn tls_is_as_the_cloud_says() {
    let tls = |keys: &str| {
        let world = one(&format!("{{{AUTH}{keys}}}"));
        let (cloud, warnings) = world.search().resolve("c", None).unwrap();
        let base = world.0.path().to_owned();
        let relative = move |path: Option<PathBuf>| {
            path.map(|path| {
                path.strip_prefix(&base)
                    .map_or_else(|_| path.clone(), |path| path.to_owned())
                    .display()
                    .to_string()
            })
        };
        let Tls { verify, ca, cert, key } = cloud.tls;
        (verify, relative(ca), relative(cert), relative(key), warnings.len())
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(tls(""), (true, None, None, None, 0));
    assert_eq!(tls(", cacert: /ca, cert: ~/c, key: k"), (true, some("/ca"), some("home/c"), some("k"), 0));
    assert_eq!(tls(", verify: false, cacert: /ca"), (false, some("/ca"), None, None, 1));
    assert!(!tls(", verify: 'False'").0);
    assert!(!tls(", insecure: 'true'").0);
    assert_eq!(tls(", verify: /ca"), (true, some("/ca"), None, None, 0));
}

#[test]
fn mistakes_name_file_cloud_and_key() {
    let missing = |key: &str| format!("own/clouds.yaml: clouds.c.{key}: is missing");
    let cases = [
        ("{}".to_owned(), vec![missing("auth.auth_url"), missing("auth.username"), missing("auth.password")]),
        ("{auth: {auth_url: 'https://k', username: u, password: p}}".to_owned(), vec![missing("auth.user_domain_name")]),
        (
            "{auth: {auth_url: 'https://k', user_id: u, password: p, project_name: p}}".to_owned(),
            vec![missing("auth.project_domain_name")],
        ),
        (
            "{auth_type: v3applicationcredential, auth: {auth_url: 'https://k'}}".to_owned(),
            vec![missing("auth.application_credential_id"), missing("auth.application_credential_secret")],
        ),
        (
            format!("{{{AUTH}, auth_type: v3totp}}"),
            vec!["own/clouds.yaml: clouds.c.auth_type: 'v3totp' is not known here; known are: password, v3password, \
                  v3applicationcredential, token, v3token".to_owned()],
        ),
        (
            format!("{{{AUTH}, identity_api_version: 2.0, verify: maybe, key: k, image_import_method: x, api_timeout: soon}}"),
            vec![
                "own/clouds.yaml: clouds.c.identity_api_version: version 2.0 is not spoken here, only 3".to_owned(),
                "own/clouds.yaml: clouds.c.verify: expected true or false, found 'maybe'".to_owned(),
                missing("cert"),
                "own/clouds.yaml: clouds.c.image_import_method: expected 'glance-direct', found 'x'".to_owned(),
                "own/clouds.yaml: clouds.c.api_timeout: expected a number of seconds, found 'soon'".to_owned(),
            ],
        ),
        (
            format!("{{{AUTH}, image_endpoint_override: 'https://{{nothing}}'}}"),
            vec!["own/clouds.yaml: clouds.c.image_endpoint_override: '{nothing}' stands for no key of the cloud".to_owned()],
        ),
        ("{auth: [a]}".to_owned(), vec![
            "own/clouds.yaml: clouds.c.auth: expected a mapping, found a list".to_owned(),
            missing("auth.auth_url"), missing("auth.username"), missing("auth.password"),
        ]),
        ("5".to_owned(), vec!["own/clouds.yaml: clouds.c: expected a mapping, found a whole number".to_owned()]),
        (
            "{profile: vexxhost, auth: {user_id: u, password: p}}".to_owned(),
            vec![
                missing("auth.auth_url"),
                "own/clouds.yaml: clouds.c: the profile 'vexxhost' is in no clouds-public.yaml, and those of openstacksdk \
                 are not known here: write its 'auth_url' and regions into the cloud".to_owned(),
            ],
        ),
    ];
    for (cloud, expected) in cases {
        assert_eq!(one(&cloud).mistakes("c", None), expected, "{cloud}");
    }
}

#[test]
fn missing_and_broken_files_are_named() {
    let nothing = World::new().mistakes("c", None);
    assert_eq!(
        nothing,
        ["there is no clouds.yaml to find the cloud 'c' in; looked for own/clouds.yaml, system/clouds.yaml"]
    );
    let cases = [
        ("clouds: {cloud1: {}}", "own/clouds.yaml has no cloud 'c', only: cloud1"),
        ("clouds: {cc: {}}", "own/clouds.yaml has no cloud 'c', only: cc; did you mean 'cc'?"),
        ("other: {}", "own/clouds.yaml: the key 'clouds' is missing"),
        ("clouds: []", "own/clouds.yaml: clouds: expected a mapping, found a list"),
        ("- c", "own/clouds.yaml: expected a mapping, found a list"),
        (
            "a: [",
            "own/clouds.yaml:2:1: not valid YAML: did not find expected node content, while parsing a flow node",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(World::new().with("own/clouds.yaml", text).mistakes("c", None), [expected]);
    }
    let json = World::new().with("own/clouds.json", "{\"clouds\": {\"c\": \"s3cret\"");
    assert_eq!(json.mistakes("c", None), ["own/clouds.json: not valid JSON: see line 1 column 25"]);
}

#[test]
fn what_is_said_of_networks_is_kept() {
    let world = one(&format!(
        "{{{AUTH}, private: true, floating_ip_source: None, networks: [{{name: out, routes_externally: true, nat_source: true}},
           {{name: lan, routes-ipv4-externally: false, nat_destination: 'yes', default_interface: true}}]}}"
    ));
    let reach = world.cloud("c", None).reach;
    assert!(reach.private && reach.no_floating_ips && !reach.only_ipv4);
    let out = NetworkWish { name: "out".into(), external: true, nat_source: true, ..NetworkWish::default() };
    let lan = NetworkWish {
        name: "lan".into(),
        nat_destination: true,
        default_interface: true,
        ..NetworkWish::default()
    };
    assert_eq!(reach.networks, [out, lan]);

    let world = one(&format!(
        "{{{AUTH}, external_network: out, internal_network: lan}}}}\nclient: {{force_ipv4: true"
    ));
    let reach = world.cloud("c", None).reach;
    assert!(reach.only_ipv4 && !reach.private && !reach.no_floating_ips);
    let wishes: Vec<_> =
        reach.networks.iter().map(|wish| (wish.name.as_str(), wish.external, wish.nat_destination)).collect();
    assert_eq!(wishes, [("out", true, false), ("lan", false, true)]);

    let world = one(&format!(
        "{{{AUTH}, networks: [{{}}, {{name: a, nat_source: 5}}, {{name: b, nat_source: true}}, {{name: c, nat_source: true}}]}}"
    ));
    let expected = [
        "own/clouds.yaml: clouds.c.networks[0].name: is missing",
        "own/clouds.yaml: clouds.c.networks[1].nat_source: expected true or false, found 5",
        "own/clouds.yaml: clouds.c.networks: 'b' and 'c' have nat_source both, only one can",
    ];
    assert_eq!(world.mistakes("c", None), expected);
}
