-- Health of a PerformancePolicy for Argo CD: whether the policy is in force. What traffic does (TargetsMet, BudgetHealthy) is told in the
-- message and changes no health: a slow service would hold up the very sync that mends it.
local hs = {status = "Progressing", message = "waiting for the operator"}
if obj.status == nil or obj.status.conditions == nil then
  return hs
end
if obj.status.observedGeneration ~= obj.metadata.generation then
  hs.message = "waiting for the operator to look at this generation"
  return hs
end

local found = {}
for _, condition in ipairs(obj.status.conditions) do
  found[condition.type] = condition
end
local function is(kind, status)
  return found[kind] ~= nil and found[kind].status == status
end

if is("Stalled", "True") then
  hs.status = "Degraded"
  hs.message = found["Stalled"].reason .. ": " .. found["Stalled"].message
elseif is("Suspended", "True") then
  hs.status = "Suspended"
  hs.message = found["Suspended"].message
elseif is("Ready", "True") then
  hs.status = "Healthy"
  hs.message = found["Ready"].message
  for _, kind in ipairs({"TargetsMet", "BudgetHealthy"}) do
    if is(kind, "False") then
      hs.message = hs.message .. "; " .. found[kind].reason .. ": " .. found[kind].message
    end
  end
elseif found["Ready"] ~= nil then
  hs.message = found["Ready"].message
end
return hs
