-- The record of a course: its line, then the errors, one JSON object a line.
local function course_text(course)
  local line = string.format("%.0f|%.0f|%.0f|%s|%s|%s|%s|%s|%s|%.0f|%.0f%s", course.attempt, course.crashes,
    course.snoozes, course.token, course.verb, course.to, course.started, course.worker, course.reason,
    course.unhandled, course.since, course.alike == "" and "" or "|" .. course.alike)
  return course.errors == "" and line or line .. "\n" .. course.errors
end
