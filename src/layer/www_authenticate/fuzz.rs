use super::*;

/// Whatever the line is: what is parsed is a part of it, in its order, and a line that is written from
/// what was parsed says the same.
pub(crate) fn www_authenticate(line: &[u8]) {
    let mut read_to = 0;
    let mut take = |part: &[u8]| {
        let at = (part.as_ptr() as usize).wrapping_sub(line.as_ptr() as usize);
        assert!(at >= read_to, "out of order, or not of this line");
        read_to = at + part.len();
        assert!(read_to <= line.len());
    };
    let challenges: Vec<_> = Challenges::of(line).collect();
    for challenge in &challenges {
        take(challenge.scheme);
        assert!(!challenge.scheme.is_empty());
        challenge.token68.into_iter().for_each(&mut take);
        for (name, value) in challenge.params() {
            take(name);
            take(value.0);
        }
    }
    let written = write(&challenges);
    assert_eq!(write(&Challenges::of(&written).collect::<Vec<_>>()), written);
    assert_eq!(Challenges::of(&written).count(), challenges.len());
}

fn write(challenges: &[Challenge<'_>]) -> Vec<u8> {
    let written = challenges.iter().map(|challenge| {
        let parts = challenge.params().map(|(name, value)| {
            let escaped = value.unescaped().flat_map(|byte| [b'\\', byte]);
            [name, b"=\"", &escaped.collect::<Vec<_>>(), b"\""].concat()
        });
        let parts: Vec<_> =
            challenge.token68.map(<[u8]>::to_vec).into_iter().chain(parts).collect();
        [challenge.scheme, b" ", &parts.join(&b", "[..])].concat()
    });
    written.collect::<Vec<_>>().join(&b", "[..])
}
