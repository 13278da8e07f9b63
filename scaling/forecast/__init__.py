"""The load to come: from the samples that were kept to a forecast that has to earn its trust."""
