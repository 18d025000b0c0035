//! The configurations of the original's own tests, which have every form that it knows: whoever comes from there has
//! some like them.

use crate::support::Sandbox;
use crate::support::original::Original;

/// What the original accepts is accepted, and what it refuses is refused, but for drivers that we do not have.
#[test]
fn config_validate_judges_the_originals_own_configurations_as_the_original_does() {
    let sandbox = Sandbox::new("client-fixtures");
    let (mut same, mut without_driver) = (0, 0);
    for (accepted, file) in Original::get().judged_fixtures(&sandbox) {
        let outcome = sandbox.validate(&file, &[("NODEPOOL_PORT", "22")]);
        let errors = outcome.stderr.lines().filter(|line| !line.contains(": warning: "));
        let (missing, others): (Vec<&str>, Vec<&str>) =
            errors.partition(|line| line.contains("this version does not have the driver"));
        // One of its tests brings a driver of its own.
        let foreign = others.iter().all(|line| line.contains("unknown driver 'test'"));
        match (outcome.code(), accepted) {
            (0, true) => same += 1,
            (1, false) if !others.is_empty() => same += 1,
            (1, _) if foreign && !(missing.is_empty() && others.is_empty()) => without_driver += 1,
            _ => panic!("{}, accepted by the original: {accepted}: {outcome:?}", file.display()),
        }
    }
    assert!(
        same >= 90 && same + without_driver >= 180,
        "{same} are judged the same, {without_driver} cannot be"
    );
}
