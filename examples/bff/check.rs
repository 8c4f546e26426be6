pub(crate) async fn run(
    _: &str,
    _: &crate::options::Options,
    _: &crate::server::Server,
) -> Result<bool, tower_refresh::BoxError> {
    Ok(true)
}
