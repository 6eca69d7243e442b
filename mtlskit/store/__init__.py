"""What mtlskit keeps on disk, written so that nobody ever finds half of it."""
