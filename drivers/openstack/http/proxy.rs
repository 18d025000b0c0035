//! The proxy that the environment names: `https_proxy`, `http_proxy`, `all_proxy` and `no_proxy`, in lower or
//! upper case, as the requests library has it for openstacksdk. Each connection goes through it by CONNECT.

use ureq::Proxy;

/// The proxy for addresses of `scheme`. The error does not show it: it may have a password in it.
pub(super) fn of_environment(scheme: &str) -> Result<Option<Proxy>, String> {
    let variable = |name: String| std::env::var(name).ok().filter(|text| !text.is_empty());
    let named = |name: &str| variable(name.to_owned()).or_else(|| variable(name.to_ascii_uppercase()));
    let name = format!("{scheme}_proxy");
    let Some((name, address)) =
        [name.as_str(), "all_proxy"].iter().find_map(|name| Some((*name, named(name)?)))
    else {
        return Ok(None);
    };
    // ureq takes the exceptions from the environment by itself, but in one builder only.
    let mistake =
        |why: ureq::Error| format!("the proxy of the environment variable {name} cannot be used: {why}");
    let proxy = Proxy::new(&address).map_err(mistake)?;
    let mut builder = Proxy::builder(proxy.protocol()).host(proxy.host()).port(proxy.port());
    if let Some(user) = proxy.username() {
        builder = builder.username(user);
    }
    if let Some(password) = proxy.password() {
        builder = builder.password(password);
    }
    for exception in named("no_proxy").unwrap_or_default().split(',').map(str::trim) {
        if !exception.is_empty() {
            builder = builder.no_proxy(exception);
        }
        // A domain is one for all that is in it.
        if !exception.is_empty() && !exception.starts_with(['.', '*']) {
            builder = builder.no_proxy(&format!(".{exception}"));
        }
    }
    builder.build().map(Some).map_err(mistake)
}
