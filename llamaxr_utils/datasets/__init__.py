"""Reports, conditions and images of IU X-ray."""
