fn main() -> Result<(), Box<dyn std::error::Error>> {
    cynic_codegen::register_schema("shop").from_sdl_file("schema.graphql")?;
    Ok(())
}
