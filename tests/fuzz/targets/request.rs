//! The head of a request to the status pages, in one piece or, as the first byte says, in two.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nodepool::web::Request;

fuzz_target!(|data: &[u8]| {
    let Some((&first, head)) = data.split_first() else { return };
    let whole = Request::parse(head);
    match Request::parse(&head[..head.len().min(usize::from(first))]) {
        // More bytes neither take an answer back nor mend what is wrong.
        Ok(Some(request)) => assert_eq!(whole.as_ref(), Ok(&Some(request))),
        Err(status) => assert_eq!(whole, Err(status)),
        Ok(None) => {}
    }
    if let Ok(Some(request)) = whole {
        assert!(!request.path.contains('?'), "{request:?}");
        for name in ["fields", "", "a"] {
            assert!(request.parameter(name).is_none_or(|value| !value.is_empty()), "{request:?}");
        }
    }
});
