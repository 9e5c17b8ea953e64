//! Against moto: the headers that Garage ignores.
