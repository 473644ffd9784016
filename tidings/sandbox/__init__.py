"""Local stand-ins for Notion and Resend: one process that speaks both wire protocols."""
