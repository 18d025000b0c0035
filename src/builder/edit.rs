//! What an edit of the configuration touches: the images whose plans may be other ones after it.

use std::collections::{BTreeMap, BTreeSet};

use super::failures::Failures;
use crate::config::{Config, same_provider};

/// The images that the step from `old` to `new` touches; `None` for any. What has changed gets a new chance:
/// its failures are forgotten.
///
/// Of a provider a plan depends on that it is there, on its format, and on how it lists the image.
pub(super) fn touched(old: &Config, new: &Config, failures: &mut Failures) -> Option<BTreeSet<String>> {
    let mut images: BTreeSet<String> = differing(&old.diskimages, &new.diskimages).cloned().collect();
    for image in &images {
        failures.forget_image(image);
    }
    let mut all = false;
    let names: BTreeSet<&String> = old.providers.keys().chain(new.providers.keys()).collect();
    for name in names {
        let both = (old.providers.get(name), new.providers.get(name));
        if matches!(both, (Some(before), Some(after)) if same_provider(&**before, &**after)) {
            continue;
        }
        images.extend(failures.forget_provider(name));
        match [both.0, both.1].map(|provider| provider.and_then(|provider| provider.images())) {
            [None, None] => {}
            [Some(before), Some(after)] if before.format == after.format => {
                images.extend(differing(&before.diskimages, &after.diskimages).cloned());
            }
            // Any image may have uploads there, whatever the configuration says of it.
            _ => all = true,
        }
    }
    (!all).then_some(images)
}

/// The keys that stand for something else in the other map, or for nothing.
fn differing<'a, V: PartialEq>(
    old: &'a BTreeMap<String, V>,
    new: &'a BTreeMap<String, V>,
) -> impl Iterator<Item = &'a String> {
    let changed = old.iter().filter(|(name, value)| new.get(*name) != Some(value)).map(|(name, _)| name);
    changed.chain(new.keys().filter(|name| !old.contains_key(*name)))
}
