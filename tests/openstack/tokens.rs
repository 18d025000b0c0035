//! Tokens that run out or are revoked while the builder works.

use super::*;
use crate::support::openstack::Options;

#[test]
fn tokens_that_expire_in_the_middle_of_an_upload_or_are_revoked_fail_nothing() {
    let services = OpenStack::start_with(Options { token_ttl: 6, token_cache: false, ..Options::default() });
    services.gate().limit(2 << 20);
    let sandbox = Sandbox::new("openstack-tokens");
    let image = qcow2(&sandbox, "token", 40, "");
    sandbox.write_body(&body(&[image], &[provider("gate", "{name: token}", "")]));
    let zk = sandbox.zk();
    let builder = builder(&sandbox, &services, &[]);
    builder.wait_until("an upload in its middle", SOON, || (services.gate().standing() > 0).then_some(()));
    // Made later than the builder's, it ends later.
    let token = services.token();
    builder.wait_until("a token to expire", SOON, || (!services.is_good(&token)).then_some(()));
    services.gate().open();
    let first = wait_ready(&zk, "token");
    wait_upload(&zk, "token", &first, "gate-here", "ready");

    services.revoke_tokens();
    // Tokens know no parts of a second: those of the same one count as revoked, too.
    eventually(SOON, "tokens that count", || services.is_good(&services.token()).then_some(()));
    request(&zk, "token");
    let upload_of_another = || {
        let builds = crate::builder::builds(&zk, "token").into_iter().map(|(build, _)| build);
        let mut others = builds.filter(|build| *build != first);
        others.find(|build| !in_state(uploads(&zk, "token", build, "gate-here"), "ready").is_empty())
    };
    builder.wait_until("the upload of another build", SOON, upload_of_another);
    assert!(!builder.log().contains("the upload failed"), "{}", builder.log());
    assert_eq!(services.image_states("token-"), ["active", "active"]);
}
