//! From files to a [`Cloud`]: merged, with old spellings understood and mistakes named.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use ring::digest::{SHA256, digest};

use super::files::{Kind, Search};
use super::merge::{self, Entries, get, put};
use super::{Cloud, Service, Tls};
use crate::api::{Value, nearest};

/// The services that a provider uses, by how their keys begin.
const SERVICES: [&str; 5] = ["identity", "image", "compute", "network", "block_storage"];

/// The cloud and what is odd about it, or every mistake.
pub(in crate::openstack) fn resolve(
    search: &Search,
    name: &str,
    region: Option<&str>,
) -> Result<(Cloud, Vec<String>), Vec<String>> {
    let one = |mistake: String| vec![mistake];
    let Some(found) = search.first(Kind::Clouds).map_err(one)? else {
        let places = search.describe();
        return Err(one(format!(
            "there is no clouds.yaml to find the cloud '{name}' in; looked for {places}"
        )));
    };
    let mut tree = found.tree;
    if let Some(secure) = search.first(Kind::Secure).map_err(one)? {
        tree = merge::over(&tree, &secure.tree);
    }
    let clouds = match tree.get("clouds") {
        Some(Value::Map(clouds)) => clouds,
        Some(other) => {
            let message =
                format!("{}: clouds: expected a mapping, found {}", found.path.display(), other.kind());
            return Err(one(message));
        }
        None => return Err(one(format!("{}: the key 'clouds' is missing", found.path.display()))),
    };
    let Some((_, own)) = clouds.iter().rev().find(|(key, _)| key == name) else {
        let names = clouds.iter().map(|(name, _)| name.as_str());
        let hint = nearest(name, names.clone()).map(|meant| format!("; did you mean '{meant}'?"));
        let names = names.collect::<Vec<_>>().join(", ");
        let message = format!(
            "{} has no cloud '{name}', only: {names}{}",
            found.path.display(),
            hint.unwrap_or_default()
        );
        return Err(one(message));
    };
    let Value::Map(_) = own else {
        let message =
            format!("{}: clouds.{name}: expected a mapping, found {}", found.path.display(), own.kind());
        return Err(one(message));
    };
    let mut reader = Reader {
        search,
        file: &found.path,
        cloud: name,
        client: tree.get("client").map(merge::entries).unwrap_or_default(),
        entries: Entries::new(),
        auth: Entries::new(),
        mistakes: Vec::new(),
        warnings: Vec::new(),
    };
    let profile_missing = reader.lay(merge::entries(own)).map_err(one)?;
    reader.choose_region(region);
    let cloud = reader.cloud();
    if let (None, Some(profile)) = (&cloud, &profile_missing) {
        reader.mistakes.push(format!(
            "{}: the profile '{profile}' is in no clouds-public.yaml, and those of openstacksdk are not \
             known here: write its 'auth_url' and regions into the cloud",
            reader.place()
        ));
    }
    match cloud {
        Some(cloud) if reader.mistakes.is_empty() => Ok((cloud, reader.warnings)),
        _ => Err(reader.mistakes),
    }
}

/// A cloud's entries while they are read.
pub(super) struct Reader<'a> {
    search: &'a Search,
    file: &'a Path,
    cloud: &'a str,
    /// The section `client`, which is for all clouds.
    pub(super) client: Entries,
    pub(super) entries: Entries,
    auth: Entries,
    mistakes: Vec<String>,
    warnings: Vec<String>,
}

impl Reader<'_> {
    /// Lays the cloud over its profile. Returns the profile's name if there is none of that name.
    fn lay(&mut self, own: Entries) -> Result<Option<String>, String> {
        let profile = get(&own, "profile").or_else(|| get(&own, "cloud")).and_then(Value::scalar_text);
        let mut missing = None;
        if let Some(profile) = profile {
            let public = self.search.first(Kind::Public)?;
            let found = public.as_ref().and_then(|file| file.tree.get("public-clouds")?.get(&profile));
            match found {
                Some(found) => self.entries = merge::entries(found),
                None => missing = Some(profile),
            }
        }
        merge::update(&mut self.entries, own);
        Ok(missing)
    }

    /// Chooses the region and lays its own values over the cloud's.
    fn choose_region(&mut self, wanted: Option<&str>) {
        let regions = match (get(&self.entries, "regions"), get(&self.entries, "region_name")) {
            (Some(Value::List(regions)), _) => regions.clone(),
            (_, Some(Value::List(names))) => names.clone(),
            (_, Some(Value::Str(names))) => {
                names.split(',').map(|name| Value::Str(name.trim().to_owned())).collect()
            }
            _ => Vec::new(),
        };
        let name_of = |region: &Value| match region {
            Value::Map(_) => region.get("name").and_then(Value::scalar_text),
            other => other.scalar_text(),
        };
        let names: Vec<String> = regions.iter().filter_map(name_of).collect();
        let region = match wanted.filter(|wanted| !wanted.is_empty()) {
            None => regions.first(),
            Some(wanted) => {
                let found = regions.iter().find(|region| name_of(region).as_deref() == Some(wanted));
                if found.is_none() && !regions.is_empty() {
                    let place = self.place();
                    self.mistakes.push(format!(
                        "{place}.regions: no region '{wanted}' (the provider's region-name), only: {}",
                        names.join(", ")
                    ));
                }
                found
            }
        };
        let values = region.and_then(|region| region.get("values")).map(merge::entries);
        let name =
            region.and_then(name_of).or_else(|| wanted.map(str::to_owned)).filter(|name| !name.is_empty());
        merge::update(&mut self.entries, values.unwrap_or_default());
        put(&mut self.entries, "region_name".to_owned(), name.map_or(Value::Null, Value::Str));
    }

    fn cloud(&mut self) -> Option<Cloud> {
        match get(&self.entries, "auth").cloned() {
            Some(Value::Map(auth)) => self.auth = auth,
            None => {}
            Some(other) => self.mistake("auth", &format!("expected a mapping, found {}", other.kind())),
        }
        let auth_url =
            self.required_auth("auth_url", &["auth_url"]).map(|url| self.expand("auth.auth_url", &url));
        let auth_url = auth_url.filter(|url| self.check_url("auth.auth_url", url));
        self.check_api("identity", &["3"]);
        self.check_api("image", &["2"]);
        let credentials = self.credentials();
        let tls = self.tls();
        if self.boolean("image_api_use_tasks") == Some(true) {
            self.mistake("image_api_use_tasks", "the task API is gone from Glance; 'image_import_method: glance-direct' may be what the cloud wants now");
        }
        let import = match self.text("image_import_method").as_deref() {
            None | Some("") => false,
            Some("glance-direct") => true,
            Some(other) => {
                self.mistake("image_import_method", &format!("expected 'glance-direct', found '{other}'"));
                false
            }
        };
        let image_format = self.text("image_format").filter(|format| !format.is_empty());
        let image_format = image_format.unwrap_or_else(|| "qcow2".to_owned());
        if !image_format.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            self.mistake(
                "image_format",
                &format!("expected a format such as 'qcow2', found '{image_format}'"),
            );
        }
        let mut services = BTreeMap::new();
        for prefix in [""].into_iter().chain(SERVICES) {
            services.insert(prefix.to_owned(), self.service(prefix));
        }
        let image_properties = match get(&self.entries, "disable_vendor_agent") {
            Some(Value::Map(map)) => {
                map.iter().filter_map(|(key, value)| Some((key.clone(), value.scalar_text()?))).collect()
            }
            _ => BTreeMap::new(),
        };
        let timeout = self.timeout();
        let reach = self.reach();
        let mut cloud = Cloud {
            name: self.cloud.to_owned(),
            region: self.text("region_name").filter(|name| !name.is_empty()),
            auth_url: auth_url?,
            credentials: credentials?,
            tls,
            image_format,
            import,
            image_properties,
            timeout,
            reach,
            services,
            digest: String::new(),
        };
        // With the secrets, which the text of a cloud has not.
        let all = format!("{cloud:?}{}", cloud.credentials.request());
        cloud.digest =
            digest(&SHA256, all.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Some(cloud)
    }

    fn tls(&mut self) -> Tls {
        let path =
            |text: Option<String>| text.filter(|text| !text.is_empty()).map(|text| self.search.path(&text));
        let [mut ca, cert, key] = ["cacert", "cert", "key"].map(|key| path(self.text(key)));
        let insecure = self.boolean("insecure") == Some(true);
        let mut verify = !insecure;
        match get(&self.entries, "verify").cloned() {
            None => {}
            // A path, as the requests library takes one there.
            Some(Value::Str(text)) if text.starts_with(['/', '~', '.']) => {
                ca = ca.or_else(|| Some(self.search.path(&text)));
            }
            Some(_) => verify &= self.boolean("verify").unwrap_or(true),
        }
        if !verify {
            let place = self.place();
            self.warnings.push(format!(
                "{place}.verify: the certificates of its servers are not checked: whoever is between can read the password"
            ));
        }
        if key.is_some() && cert.is_none() {
            self.missing("cert");
        }
        Tls { verify, ca, cert, key }
    }

    fn service(&mut self, prefix: &str) -> Service {
        let key = |name: &str| if prefix.is_empty() { name.to_owned() } else { format!("{prefix}_{name}") };
        let interface = [key("interface"), key("endpoint_type")];
        let interface = interface.iter().find_map(|key| get(&self.entries, key).map(|value| (key, value)));
        let interfaces = match interface.map(|(key, value)| (key.clone(), merge::texts(value))) {
            None if prefix.is_empty() => vec!["public".to_owned()],
            None => Vec::new(),
            Some((_, Some(names))) => {
                names.iter().map(|name| name.strip_suffix("URL").unwrap_or(name).to_owned()).collect()
            }
            Some((key, None)) => {
                self.mistake(&key, "expected an interface such as 'public'");
                Vec::new()
            }
        };
        if prefix.is_empty() {
            return Service { interfaces, ..Service::default() };
        }
        let named = |name: &str| self.text(&key(name)).filter(|text| !text.is_empty());
        let [region, service_type, service_name] = ["region_name", "service_type", "service_name"].map(named);
        let endpoint =
            ["endpoint_override", "endpoint"].iter().find_map(|name| Some((key(name), named(name)?)));
        let endpoint = endpoint.map(|(key, url)| (self.expand(&key, &url), key));
        let endpoint = endpoint.filter(|(url, key)| self.check_url(key, url)).map(|(url, _)| url);
        Service { endpoint, interfaces, region, service_type, service_name }
    }

    fn timeout(&mut self) -> Option<Duration> {
        let text = self.text("api_timeout")?;
        let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let seconds = seconds.filter(|seconds| !seconds.is_zero());
        if seconds.is_none() {
            self.mistake("api_timeout", &format!("expected a number of seconds, found '{text}'"));
        }
        seconds
    }

    fn check_api(&mut self, prefix: &str, majors: &[&str]) {
        let key = format!("{prefix}_api_version");
        let Some(version) = self.text(&key) else { return };
        let major = version.trim_start_matches('v').split('.').next().unwrap_or_default().to_owned();
        if !majors.contains(&major.as_str()) {
            self.mistake(&key, &format!("version {version} is not spoken here, only {}", majors.join(", ")));
        }
    }

    fn check_url(&mut self, key: &str, url: &str) -> bool {
        let usable = url.starts_with("https://") || url.starts_with("http://");
        let usable = usable
            && url
                .parse::<ureq::http::Uri>()
                .is_ok_and(|uri| uri.host().is_some_and(|host| !host.is_empty()));
        if !usable {
            self.mistake(key, "expected an address that begins with https:// or http://");
        }
        usable
    }

    /// Fills `{key}` with the cloud's own values, as in `https://{region_name}.example.com`.
    fn expand(&mut self, key: &str, text: &str) -> String {
        let mut expanded = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            expanded.push_str(before);
            let Some((name, after)) = after.split_once('}') else {
                self.mistake(key, "has a '{' without '}'");
                return expanded;
            };
            match self.text(name) {
                Some(value) => expanded.push_str(&value),
                None => {
                    self.mistake(key, &format!("'{{{name}}}' stands for no key of the cloud"));
                    // One mistake is enough.
                    expanded.push_str(name);
                }
            }
            rest = after;
        }
        expanded + rest
    }

    /// The text of a key of the cloud.
    pub(super) fn text(&self, key: &str) -> Option<String> {
        get(&self.entries, key).and_then(Value::scalar_text)
    }

    /// The text of one of several keys: of `auth`, or else of the cloud, the last of them that there is.
    pub(super) fn auth_text(&self, keys: &[&str]) -> Option<String> {
        let find = |entries: &Entries| keys.iter().rev().find_map(|key| get(entries, key)?.scalar_text());
        find(&self.auth).or_else(|| find(&self.entries)).filter(|text| !text.is_empty())
    }

    pub(super) fn required_auth(&mut self, key: &str, keys: &[&str]) -> Option<String> {
        let text = self.auth_text(keys);
        if text.is_none() {
            self.missing(&format!("auth.{key}"));
        }
        text
    }

    /// A boolean, also as text, as in an environment variable.
    pub(super) fn boolean(&mut self, key: &str) -> Option<bool> {
        let value = get(&self.entries, key)?;
        let read = as_boolean(value);
        if read.is_none() {
            let found = value.describe();
            self.mistake(key, &format!("expected true or false, found {found}"));
        }
        read
    }

    fn place(&self) -> String {
        format!("{}: clouds.{}", self.file.display(), self.cloud)
    }

    pub(super) fn mistake(&mut self, key: &str, what: &str) {
        let place = self.place();
        self.mistakes.push(format!("{place}.{key}: {what}"));
    }

    pub(super) fn missing(&mut self, key: &str) {
        self.mistake(key, "is missing");
    }
}

/// A boolean, also as text.
pub(super) fn as_boolean(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(yes) => Some(*yes),
        Value::Str(word) => match word.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" => Some(true),
            "false" | "no" | "off" => Some(false),
            _ => None,
        },
        _ => None,
    }
}
