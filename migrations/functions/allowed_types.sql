-- Returns the allowed media types of a category, sorted: its own, or else those of the policy.
CREATE OR REPLACE FUNCTION app.allowed_types(policy jsonb, category text) RETURNS text[]
    LANGUAGE plpgsql STABLE
    AS $$
BEGIN
    RETURN array(
        SELECT DISTINCT jsonb_array_elements_text(coalesce(
            nullif(policy #> ARRAY['categories', category, 'types'], '[]'), policy -> 'types', '[]')) AS taken
        ORDER BY taken);
END
$$;
REVOKE ALL ON FUNCTION app.allowed_types FROM PUBLIC;
GRANT EXECUTE ON FUNCTION app.allowed_types TO strongroom_app;
