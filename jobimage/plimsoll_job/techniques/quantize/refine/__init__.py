"""Float models whose answers stay nearer to their own when a scheme rounds them: they are changed before it does."""
