"""The intermediate representation: frozen values that know numpy only."""
