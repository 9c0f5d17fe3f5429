"""Teaching: a person's corrections become a better model, or the model stays as it is and the person hears why."""
